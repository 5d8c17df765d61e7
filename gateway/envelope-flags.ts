/**
 * The flags in front of each message of gRPC, gRPC-Web and Connect streams. Bits that no version of these protocols has given a
 * meaning yet are refused: what a peer means by them is not known, so its bytes cannot be taken for a plain message.
 */
import { SluiceError } from '../lib/errors.js';

/** Compressed. */
const compressed = 0x01;
const byType: ReadonlyMap<string, number> = new Map([
  ['application/grpc', compressed],
  ['application/grpc-web', compressed | 0x80],
  ['application/connect', compressed | 0x02],
]);

/** The bits that have a meaning in requests of this content type; undefined when its messages have no envelopes. */
export function knownFlags(contentType: string): number | undefined {
  return byType.get(contentType.split('+', 1)[0] as string);
}

/** @param unknown the bits that have no meaning */
export const reservedFlags = (unknown: number): SluiceError =>
  new SluiceError(
    'request_malformed',
    `The message's envelope has the flag bits 0x${unknown.toString(16).padStart(2, '0')}, which no version of the protocol knows.`,
  );

const headSize = 5;

/**
 * Passes the bytes on. Throws at an envelope with other flags; with `cut`, when all before it is passed on.
 * @param cut at the end of each message: the library's decoder drops the messages of a piece in which a later one is too large
 * @throws SluiceError request_malformed
 */
export async function* checkFlags(
  chunks: AsyncIterable<Uint8Array>,
  known: number,
  cut: boolean,
): AsyncGenerator<Uint8Array> {
  /** Bytes until the next head, of a message whose head is read. */
  let left = 0;
  let headFilled = 0;
  let unknown = 0;
  let size = 0;
  for await (const chunk of chunks) {
    /** What is passed on of this chunk. */
    let passed = 0;
    for (let at = 0; at < chunk.length; ) {
      if (left > 0) {
        const part = Math.min(left, chunk.length - at);
        left -= part;
        at += part;
      } else {
        const byte = chunk[at++] as number;
        if (headFilled === 0) {
          unknown = byte & ~known;
          size = 0;
        } else {
          size = size * 256 + byte;
        }
        if (++headFilled < headSize) continue;
        if (unknown !== 0) throw reservedFlags(unknown);
        headFilled = 0;
        left = size;
      }
      if (left > 0 || !cut) continue;
      yield chunk.subarray(passed, at);
      passed = at;
    }
    if (passed < chunk.length) yield chunk.subarray(passed);
  }
}
