/**
 * Bounds work that runs at the same time. Owners take turns; within one owner it is first come, first served.
 * What waits is bounded elsewhere: a single call has a seat (call-gate.ts), and a stream does one thing after another.
 */
export interface Turns {
  /** Resolves when the owner may begin. Each is followed by one `leave`. */
  enter(owner: string): Promise<void>;
  leave(owner: string): void;
  /** Now. */
  readonly inside: number;
  readonly waiting: number;
}

export interface TurnsOptions {
  /** In all. */
  readonly max: number;
  readonly maxOfOwner: number;
}

interface OwnerState {
  inside: number;
  readonly line: (() => void)[];
}

export function createTurns({ max, maxOfOwner }: TurnsOptions): Turns {
  /** In the order in which they are served next. */
  const owners = new Map<string, OwnerState>();
  let inside = 0;
  let waiting = 0;

  const serve = (): void => {
    for (const [owner, state] of owners) {
      if (inside >= max) return;
      const enter = state.inside < maxOfOwner ? state.line.shift() : undefined;
      if (enter === undefined) continue;
      waiting--;
      inside++;
      state.inside++;
      // To the end of the line: a Map visits what is added during the walk, so the walk goes round.
      owners.delete(owner);
      owners.set(owner, state);
      enter();
    }
  };

  return {
    enter: (owner) =>
      new Promise((resolve) => {
        const state = owners.get(owner) ?? { inside: 0, line: [] };
        owners.set(owner, state);
        state.line.push(resolve);
        waiting++;
        serve();
      }),
    leave(owner) {
      const state = owners.get(owner) as OwnerState;
      inside--;
      state.inside--;
      if (state.inside === 0 && state.line.length === 0) owners.delete(owner);
      serve();
    },
    get inside() {
      return inside;
    },
    get waiting() {
      return waiting;
    },
  };
}
