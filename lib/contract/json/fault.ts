/**
 * What is wrong with one value of a JSON text. A text that is no JSON at all is a {@link SluiceError} instead, since no event of it can
 * be trusted.
 */
import type { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { printable } from '../faults.js';

/** Words, or how they are found: only the first hundred faults of a request are reported, and most of what a fault costs is its words. */
type Words = string | (() => string);

const wordsOf = (words: Words): string => (typeof words === 'string' ? words : words());

/**
 * Thrown for one value. No Error: thousands may be in a request, and a stack trace costs more than reading the event.
 * What it says is to be read before the reader goes on: some of it still stands in the reader's memory.
 */
export class FieldFault {
  /** Innermost first. */
  private readonly steps: Words[];

  constructor(
    readonly code: RejectionCode,
    private readonly words: Words,
    path: Words = '',
  ) {
    this.steps = path === '' ? [] : [path];
  }

  get message(): string {
    return wordsOf(this.words);
  }

  /** The field at fault, as the contract names it. Empty: the value itself. */
  get path(): string {
    let path = '';
    for (const words of this.steps) {
      const step = wordsOf(words);
      path = path === '' || path.startsWith('[') ? step + path : `${step}.${path}`;
    }
    return path;
  }

  /** Says that the value is inside this field, or this map entry (`[key]`). */
  within(step: Words): void {
    this.steps.push(step);
  }
}

const maxShownBytes = 64;

/** Bytes of a customer's text for a message: at most 64 of them, without control characters. */
export function shown(bytes: Uint8Array, from: number, to: number): string {
  const truncated = to - from > maxShownBytes;
  return printable(bytes.subarray(from, truncated ? from + maxShownBytes : to), truncated);
}
