/**
 * How many single calls are read at the same time. The body of a call is held before the core can count it (admission counts
 * whole batches), so hundreds of callers at once would hold hundreds of bodies. Those past the bound wait unread: HTTP/2's
 * windows and TCP hold them back at the sender. Streams are not concerned; they read one message after another.
 *
 *   G1  At most `most` calls are inside, except for those that take longer than `holdMs`: a caller that drips its body must not
 *       keep the others out.
 *   G2  First come, first served; who goes away while waiting leaves the line.
 */
export interface CallGate {
  /** Runs `enter` now or later, or never when `left` comes first. */
  pass(call: { readonly enter: () => void; readonly onLeft: (listener: () => void) => void }): void;
  readonly inside: number;
  readonly waiting: number;
}

/** @param schedule as setTimeout; gives a function that cancels */
export function createCallGate(
  most: number,
  holdMs: number,
  schedule: (callback: () => void, ms: number) => () => void = (callback, ms) => {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
): CallGate {
  const line = new Set<() => void>();
  let inside = 0;

  const next = (): void => {
    inside--;
    for (const admit of line) {
      line.delete(admit);
      admit();
      return;
    }
  };

  return {
    pass({ enter, onLeft }) {
      let state: 'waiting' | 'inside' | 'done' = 'waiting';
      let cancel = (): void => {};
      const leave = (): void => {
        if (state === 'inside') {
          cancel();
          state = 'done';
          next();
        } else {
          state = 'done';
          line.delete(admit);
        }
      };
      const admit = (): void => {
        state = 'inside';
        inside++;
        cancel = schedule(leave, holdMs);
        enter();
      };
      onLeft(leave);
      if (inside < most) admit();
      else line.add(admit);
    },
    get inside() {
      return inside;
    },
    get waiting() {
      return line.size;
    },
  };
}
