import { fileURLToPath } from 'node:url';

/** The root of the checkout, whether its tests are compiled or run as they are. */
export const root = fileURLToPath(new URL('../..', import.meta.url));
