/**
 * What one client did, in the order in which it did it: every connection, send, answer and timer. Each line is noted when it happens, in a ring
 * of bounded size, and printed only when the client could not deliver everything.
 */
import type { Clock } from '../sdk-gen/typescript/src/clock.js';

export interface ClientTrace {
  note(line: string): void;
  /** The same clock; each timer that is set, runs or is cancelled is noted. */
  watch(clock: Clock): Clock;
  /** The latest lines, oldest first, each with its time in ms since the trace began. */
  lines(): string[];
}

/** @param max lines that are kept */
export function createClientTrace(max: number): ClientTrace {
  const ring: string[] = [];
  const began = performance.now();
  let noted = 0;
  let timers = 0;
  const note = (line: string): void => {
    ring[noted++ % max] = `${(performance.now() - began).toFixed(1)} ${line}`;
  };
  return {
    note,
    watch: (clock) => ({
      now: () => clock.now(),
      wall: () => clock.wall(),
      after(ms, run) {
        const id = ++timers;
        note(`timer ${id} set for ${ms.toFixed(1)} ms`);
        const cancel = clock.after(ms, () => {
          note(`timer ${id} runs`);
          run();
        });
        return () => {
          note(`timer ${id} cancelled`);
          cancel();
        };
      },
    }),
    lines() {
      const start = noted % max;
      return noted <= max ? ring.slice() : [...ring.slice(start), ...ring.slice(0, start)];
    },
  };
}
