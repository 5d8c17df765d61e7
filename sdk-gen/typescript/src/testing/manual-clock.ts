/** A clock that stands still until the test moves it. */
import type { Clock } from '../clock.js';

export interface ManualClock extends Clock {
  /** Moves time on, running what falls due in its order. */
  advance(ms: number): void;
  /** Timers that are set: a client at rest has none. */
  readonly timers: number;
}

export function createManualClock(): ManualClock {
  let now = 0;
  let next = 0;
  const timers = new Map<number, { at: number; run: () => void }>();
  return {
    now: () => now,
    wall: () => 1_767_225_600_000 + now,
    after(ms, run) {
      const id = next++;
      timers.set(id, { at: now + Math.max(0, ms), run });
      return () => timers.delete(id);
    },
    advance(ms) {
      const end = now + ms;
      for (;;) {
        let due: [number, { at: number; run: () => void }] | undefined;
        for (const entry of timers) {
          if (entry[1].at <= end && (due === undefined || entry[1].at < due[1].at)) due = entry;
        }
        if (due === undefined) break;
        timers.delete(due[0]);
        now = Math.max(now, due[1].at);
        due[1].run();
      }
      now = end;
    },
    get timers() {
      return timers.size;
    },
  };
}
