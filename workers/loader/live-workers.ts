/**
 * What one worker knows of all workers by their heartbeats, and which shards follow from it. No timers and no NATS: each call states
 * the time, in ms.
 *
 *   LIVE-1  A worker is gone when it is silent for longer than {@link expiryMs}, up to the last heartbeat that this worker heard from
 *           itself. While NATS or this process stands still, time passes but proves nothing about the others.
 *   LIVE-2  A worker that hears itself again after a silence keeps its shards for {@link expiryMs}: the others have that long to be heard.
 */

export const heartbeatMs = 1_000;
/** A worker that is silent for longer is gone. */
export const expiryMs = 3_000;
/** A heartbeat that comes later than this ends a silence (LIVE-2). */
const silenceMs = 2 * heartbeatMs;

/** Whom a worker asks whether it is there: the next by name, the first after the last. Undefined when it is alone, or not among them. */
export function neighbourOf(worker: string, live: readonly string[]): string | undefined {
  const index = live.indexOf(worker);
  return index < 0 || live.length < 2 ? undefined : live[(index + 1) % live.length];
}

/** The shards of one of the live workers; none when it is not among them. */
export function shardsOf(worker: string, live: readonly string[], shards: number): number[] {
  const index = live.indexOf(worker);
  if (index < 0) return [];
  return Array.from({ length: shards }, (_, shard) => shard).filter((shard) => shard % live.length === index);
}

export interface LiveWorkers {
  /** A heartbeat of some worker came. */
  heard(worker: string, nowMs: number): void;
  /** A worker left, or does not answer. */
  gone(worker: string): void;
  /** True when this worker does not hear even itself: it knows nothing of the others. */
  isIsolated(nowMs: number): boolean;
  /** All live workers, sorted. Undefined while they are not known: when isolated, or just back after a silence (LIVE-2). */
  known(nowMs: number): readonly string[] | undefined;
}

/** @param worker This worker's own name. */
export function createLiveWorkers(worker: string): LiveWorkers {
  const heardAt = new Map<string, number>();
  let settledAt = Number.NEGATIVE_INFINITY;
  const isIsolated = (nowMs: number): boolean => nowMs - (heardAt.get(worker) ?? Number.NEGATIVE_INFINITY) > expiryMs;
  return {
    heard(of, nowMs) {
      const before = heardAt.get(of);
      // Not at its first heartbeat: a new worker takes its share at once.
      if (of === worker && before !== undefined && nowMs - before > silenceMs) settledAt = nowMs + expiryMs;
      heardAt.set(of, nowMs);
    },
    gone(of) {
      // Its own entry is deleted by mistake only: this worker lives, and its next heartbeat writes it again.
      if (of !== worker) heardAt.delete(of);
    },
    isIsolated,
    known(nowMs) {
      if (isIsolated(nowMs) || nowMs < settledAt) return undefined;
      const ownAt = heardAt.get(worker) as number;
      for (const [other, at] of heardAt) {
        if (ownAt - at > expiryMs) heardAt.delete(other);
      }
      return [...heardAt.keys()].sort();
    },
  };
}
