/** One timer, at the earliest of what is asked. It may ring too early, after which it is to be set again. */
import type { Clock } from '../clock.js';

export interface Alarm {
  setFor(at: number): void;
  cancel(): void;
}

export function createAlarm(clock: Clock, ring: () => void): Alarm {
  let ringsAt = Number.POSITIVE_INFINITY;
  let cancel: (() => void) | undefined;
  return {
    setFor(at) {
      if (at >= ringsAt) return;
      cancel?.();
      ringsAt = at;
      cancel = clock.after(Math.max(0, at - clock.now()), () => {
        cancel = undefined;
        ringsAt = Number.POSITIVE_INFINITY;
        ring();
      });
    },
    cancel: () => cancel?.(),
  };
}
