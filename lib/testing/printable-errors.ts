/**
 * Loaded before every test file (cli/test.ts). uvu takes `details` of an error for text and calls split on it; a ConnectError
 * has an array there, so uvu threw while it printed and the failure came out without a word. Such an array can be split here,
 * also one that is put in later, as the library does with what a server answered.
 */
import { ConnectError } from '@connectrpc/connect';

const known = new WeakMap<ConnectError, unknown[]>();

Object.defineProperty(ConnectError.prototype, 'details', {
  get(this: ConnectError) {
    return known.get(this);
  },
  set(this: ConnectError, details: unknown[]) {
    Object.defineProperty(details, 'split', {
      value: () => details.map((detail) => JSON.stringify(detail)),
      configurable: true,
    });
    known.set(this, details);
  },
});
