/** Several attacks at the same time, from one process: what strangers on the internet do, and quicker than one after another. */
import type { Attack, Field } from '../attack.js';

const plus = ' + ';

/** The names in a name that {@link together} has given; any other name is its own. */
export const partsOf = (name: string): string[] => name.split(plus);

/** The same, from the n-th of the addresses 127.0.1.1, 127.0.1.2 …: limits by address then hold for each attack by itself. */
const elsewhere = (field: Field, n: number): Field =>
  Object.create(field, { target: { value: { ...field.target, from: `127.0.1.${n + 1}` } } }) as Field;

export const together = (parts: readonly Attack[]): Attack => ({
  name: parts.map((part) => part.name).join(plus),
  about: `at once: ${parts.map((part) => part.name).join(', ')}`,
  keys: Math.max(0, ...parts.map(({ keys = 0 }) => keys)),
  async run(field) {
    await Promise.all(parts.map((part, n) => part.run(elsewhere(field, n))));
  },
});
