/**
 * Virtual time: what will happen, in the order in which it will. Nothing here waits; a simulated hour costs as much as what
 * happens in it.
 */

export interface Timeline {
  /** Ms since the world began. */
  readonly now: number;
  /** Runs `run` in `ms`; what is due at the same time runs in the order in which it was asked for. Returns the canceller. */
  after(ms: number, run: () => void): () => void;
  /** Moves on to what comes next, and runs it. False: there is nothing, or it lies beyond `end`, and now is `end`. */
  step(end: number): boolean;
  /** What has happened so far. */
  readonly steps: number;
}

interface Entry {
  readonly at: number;
  readonly order: number;
  /** Undefined once it is cancelled. */
  run: (() => void) | undefined;
}

const before = (a: Entry, b: Entry): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

export function createTimeline(): Timeline {
  /** A binary heap: the next is the first. */
  const heap: Entry[] = [];
  let now = 0;
  let order = 0;
  let steps = 0;

  const push = (entry: Entry): void => {
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = heap[above] as Entry;
      if (before(parent, entry)) break;
      heap[at] = parent;
      at = above;
    }
    heap[at] = entry;
  };

  const pop = (): Entry => {
    const first = heap[0] as Entry;
    const last = heap.pop() as Entry;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && before(heap[below + 1] as Entry, heap[below] as Entry)) below++;
      if (before(last, heap[below] as Entry)) break;
      heap[at] = heap[below] as Entry;
      at = below;
    }
    heap[at] = last;
    return first;
  };

  return {
    get now() {
      return now;
    },
    after(ms, run) {
      const entry: Entry = { at: now + Math.max(0, ms), order: order++, run };
      push(entry);
      return () => {
        entry.run = undefined;
      };
    },
    step(end) {
      for (;;) {
        const next = heap[0];
        if (next === undefined || next.at > end) {
          now = Math.max(now, end);
          return false;
        }
        pop();
        if (next.run === undefined) continue;
        now = next.at;
        steps++;
        next.run();
        return true;
      }
    },
    get steps() {
      return steps;
    },
  };
}
