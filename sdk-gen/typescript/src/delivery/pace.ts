/** How long the client holds back after failures (DELIVER-4, DELIVER-7). */
import { fullJitter } from '../backoff.js';
import type { Clock } from '../clock.js';

export interface PaceOptions {
  readonly retry: { readonly baseMs: number; readonly capMs: number };
  /** How long a refused key is tried again, ms. */
  readonly refusalGraceMs: number;
  readonly clock: Clock;
  /** In [0, 1). */
  readonly random: () => number;
}

export interface Pace {
  /** Nothing new goes out before. */
  readonly pausedUntil: number;
  /** No stream is opened before. */
  readonly connectAt: number;
  /** A failure of what began at `since`. All flights of one bad moment count once. */
  failed(since: number): void;
  succeeded(): void;
  /** @param askedMs what the gateway asked for @returns when the failed batch may go out again */
  pause(askedMs: number): number;
  /** The next stream is opened after what was asked, and a wait that grows with failures. */
  delayConnect(askedMs: number): void;
  /** The next stream is opened soon: not by all of a gateway's clients at once. */
  spreadConnect(): void;
  /** The gateway knows the client. */
  welcomed(): void;
  /** The gateway refuses the client. True when it has for too long. */
  refused(): boolean;
}

/** No gateway makes a client wait longer than this, ms. */
const longestWait = 5 * 60_000;

export function createPace({ retry, refusalGraceMs, clock, random }: PaceOptions): Pace {
  /** Failures in a row, and when the last was counted. */
  let streak = 0;
  let streakAt = -1;
  let pausedUntil = 0;
  let connectAt = 0;
  let refusedSince: number | undefined;
  const backOff = (askedMs: number): number => Math.min(longestWait, askedMs) + fullJitter(streak, retry, random);
  return {
    get pausedUntil() {
      return pausedUntil;
    },
    get connectAt() {
      return connectAt;
    },
    failed(since) {
      if (since < streakAt) return;
      streak++;
      streakAt = clock.now();
    },
    succeeded() {
      streak = 0;
      streakAt = -1;
    },
    pause(askedMs) {
      const dueAt = clock.now() + backOff(askedMs);
      pausedUntil = Math.max(pausedUntil, dueAt);
      return dueAt;
    },
    delayConnect(askedMs) {
      connectAt = Math.max(connectAt, clock.now() + backOff(askedMs));
    },
    spreadConnect() {
      connectAt = Math.max(connectAt, clock.now() + random() * retry.baseMs);
    },
    welcomed() {
      refusedSince = undefined;
    },
    refused() {
      refusedSince ??= clock.now();
      return clock.now() - refusedSince >= refusalGraceMs;
    },
  };
}
