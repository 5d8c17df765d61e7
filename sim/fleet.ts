/** Processes of one kind, each in a place where another one is started after its death. */
import type { Process } from './process.js';
import type { Timeline } from './timeline.js';

export interface Fleet<T extends { readonly process: Process }> {
  /** Those that hold the places, dead ones included. */
  readonly all: readonly T[];
  /** Kills one, and starts another in its place after `ms`. */
  replace(index: number, ms: number): void;
}

/** @param start makes the process of a place; `life` counts from 0 */
export function startFleet<T extends { readonly process: Process }>(
  time: Timeline,
  size: number,
  start: (index: number, life: number) => T,
): Fleet<T> {
  const lives = new Array<number>(size).fill(0);
  const all = Array.from({ length: size }, (_, index) => start(index, 0));
  return {
    all,
    replace(index, ms) {
      const old = all[index];
      if (old === undefined) return;
      old.process.kill();
      time.after(ms, () => {
        // Somebody else has seen to it.
        if (all[index] !== old) return;
        const life = (lives[index] ?? 0) + 1;
        lives[index] = life;
        all[index] = start(index, life);
      });
    },
  };
}
