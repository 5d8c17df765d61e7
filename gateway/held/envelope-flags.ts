/**
 * The flags in front of each message of gRPC, gRPC-Web and Connect streams. Bits without a meaning in these protocols are refused: what
 * a peer means by them is unknown, so its bytes are not a plain message.
 */
import { SluiceError } from '../../lib/errors.js';

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
