/**
 * Watches whether a shard makes progress: it stores what is in its stream, or the worker reports why not. Pure; the clock is injected.
 *
 * It notes each failure on the way to a stored block, with its reason. A shard that has messages to load and makes no progress for
 * {@link StandstillOptions.afterMs} raises an alarm, with or without a known reason.
 */

export interface StandstillOptions {
  /** How long a shard may take for a step before it counts as standing still, ms. @default 20000 */
  readonly afterMs?: number;
  /** Monotonic, ms. @default performance.now */
  readonly now?: () => number;
}

/** A shard that does not get on. */
export interface Wait {
  /** Since when, seconds. */
  readonly seconds: number;
  readonly reason: string;
  /** It is not loaded until an operator acts. */
  readonly halted?: boolean;
}

export interface Standstill {
  /** A block is stored, or deferred. */
  moved(): void;
  /** Something failed, and is tried again. */
  failed(what: string, error: unknown): void;
  /** It must not be loaded until an operator acts. */
  stopped(reason: string): void;
  /** @param work whether there is something to load */
  look(work: boolean): Wait | undefined;
}

export const standsStillMs = 20_000;

export function createStandstill({
  afterMs = standsStillMs,
  now = () => performance.now(),
}: StandstillOptions = {}): Standstill {
  let sinceMs = now();
  let reason: string | undefined;
  let halted = false;
  return {
    moved() {
      sinceMs = now();
      reason = undefined;
      halted = false;
    },
    failed(what, error) {
      reason = `${what}: ${(error instanceof Error ? error.message : String(error)).slice(0, 500)}`;
    },
    stopped(why) {
      reason = why;
      halted = true;
    },
    look(work) {
      if (!work && !halted) {
        sinceMs = now();
        // What failed before there was nothing to do is no reason for what comes later.
        reason = undefined;
        return undefined;
      }
      const ms = now() - sinceMs;
      if (ms < afterMs && !halted) return undefined;
      const wait = { seconds: Math.round(ms / 1_000), reason: reason ?? 'nothing has failed, but no block gets done' };
      return halted ? { ...wait, halted } : wait;
    },
  };
}
