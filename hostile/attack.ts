/**
 * What an attack is: a script with a bound on its count, bytes and time, which runs in a process of its own (attack-process.ts)
 * against one gateway on this machine.
 */
import type { Target } from './wire/sockets.js';

/** What an attack did and saw. Only numbers, so that processes can send it to each other. */
export interface Counts {
  /** Calls, frames or connections: what the attack is made of. */
  sent: number;
  /** Of them, those that the gateway answered with headers or a status line. */
  answered: number;
  /** Streams that the gateway reset without an answer, and connections that it ended or did not take. */
  refused: number;
  /** Whole requests that had no answer and no refusal at the end. */
  unanswered: number;
  /** Connections that were opened. */
  connections: number;
  bytesOut: number;
  bytesIn: number;
  /** Answers by HTTP status, or by gRPC status as `grpc 16`. */
  readonly statuses: Record<string, number>;
}

export const newCounts = (): Counts => ({
  sent: 0,
  answered: 0,
  refused: 0,
  unanswered: 0,
  connections: 0,
  bytesOut: 0,
  bytesIn: 0,
  statuses: {},
});

/** Where an attack runs. */
export interface Field {
  readonly target: Target;
  /** Valid keys, each of another tenant. */
  readonly keys: readonly string[];
  readonly counts: Counts;
  /** A count of the full attack, at this run's scale: at least 1. */
  scaled(full: number): number;
  /** The attack's time is over: return soon. */
  readonly over: boolean;
  /** Resolves after `ms`, or at once when the time is over. */
  pause(ms: number): Promise<void>;
  /** Resolves when the time is over: what was opened stays open until then. */
  untilOver(): Promise<void>;
}

export interface Attack {
  readonly name: string;
  /** One sentence: who sends what. */
  readonly about: string;
  /** Valid keys that it needs, each of another tenant. @default 0 */
  readonly keys?: number;
  /** Only where the gateway serves TLS. */
  readonly tlsOnly?: true;
  /** More settings of the gateway, e.g. a larger limit that the attack is about. */
  readonly settings?: readonly string[];
  run(field: Field): Promise<void>;
}
