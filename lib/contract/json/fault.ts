/**
 * What is wrong with one value of a JSON text. A text that is no JSON at all is a {@link SluiceError} instead, since no event of it can
 * be trusted.
 */
import type { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { printable } from '../faults.js';

/** Thrown for one value. No Error: thousands may be in a request, and a stack trace costs more than reading the event. */
export class FieldFault {
  /** The field at fault, as the contract names it; innermost first while it is thrown. Empty: the value itself. */
  path: string;

  constructor(
    readonly code: RejectionCode,
    readonly message: string,
    path = '',
  ) {
    this.path = path;
  }

  /** Says that the value is inside this field, or this map entry (`[key]`). */
  within(step: string): void {
    this.path = this.path === '' || this.path.startsWith('[') ? step + this.path : `${step}.${this.path}`;
  }
}

const mostShownBytes = 64;

/** Bytes of a customer's text for a message: at most 64 of them, without control characters. */
export function shown(bytes: Uint8Array, from: number, to: number): string {
  const cut = to - from > mostShownBytes;
  return printable(bytes.subarray(from, cut ? from + mostShownBytes : to), cut);
}
