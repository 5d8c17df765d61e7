/**
 * Loaded before every test file (cli/test.ts). uvu takes `details` of an error for text and calls split on it; a ConnectError
 * has an array there, so uvu threw while it printed and the failure came out without a word. Such an array can be split here.
 */
import { ConnectError } from '@connectrpc/connect';

Object.defineProperty(ConnectError.prototype, 'details', {
  configurable: true,
  set(this: ConnectError, details: unknown[]) {
    Object.defineProperty(details, 'split', { value: () => details.map((detail) => JSON.stringify(detail)) });
    Object.defineProperty(this, 'details', { value: details, writable: true, enumerable: true, configurable: true });
  },
});
