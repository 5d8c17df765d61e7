/**
 * Whether a shard moves: it stores what is in its stream, or it must be said why not. Pure; the clock is injected.
 *
 * Whatever fails on the way to a stored block is noted here, with its reason. A shard that has something to load and does not get on
 * for {@link StandstillOptions.afterMs} stands still, and that is an alarm, whatever the reason and also without one.
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

export function standstill({
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
