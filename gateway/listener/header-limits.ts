/**
 * Limits the headers of a request, with an answer that names the limit. Node and nghttp2 reset a request that is far beyond their own
 * limits, and clients retry after a reset. So those limits are higher than this one.
 */
import { SluiceError } from '../../lib/errors.js';
import { KiB } from '../../lib/units.js';

/** Most headers of a request. */
export const maxHeaders = 100;
/** Most bytes of their names and values. */
export const maxHeaderBytes = 16 * KiB;
/** HTTP/2 counts 32 bytes more for each (RFC 9113, 6.5.2). What is beyond this, or twice the number, is reset. */
export const hardHeaderListBytes = 2 * maxHeaderBytes + 2 * maxHeaders * 32;

/** @param raw names and values in turn @returns undefined when they are within the limits */
export function headerFault(raw: readonly string[]): SluiceError | undefined {
  if (raw.length > 2 * maxHeaders) {
    return new SluiceError(
      'headers_too_large',
      `The request has ${raw.length / 2} headers; the limit is ${maxHeaders}.`,
    );
  }
  let bytes = 0;
  for (const text of raw) bytes += text.length;
  if (bytes <= maxHeaderBytes) return undefined;
  return new SluiceError('headers_too_large', `The headers have ${bytes} bytes; the limit is ${maxHeaderBytes}.`);
}
