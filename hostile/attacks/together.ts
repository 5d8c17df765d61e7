/** Several attacks at the same time, from one process: what strangers on the internet do, and quicker than one after another. */
import type { Attack } from '../attack.js';

const plus = ' + ';

/** The names in a name that {@link together} has given; any other name is its own. */
export const partsOf = (name: string): string[] => name.split(plus);

export const together = (parts: readonly Attack[]): Attack => ({
  name: parts.map((part) => part.name).join(plus),
  about: `at once: ${parts.map((part) => part.name).join(', ')}`,
  keys: Math.max(0, ...parts.map(({ keys = 0 }) => keys)),
  async run(field) {
    await Promise.all(parts.map((part) => part.run(field)));
  },
});
