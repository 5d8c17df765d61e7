/**
 * Cuts a body, with or without envelopes, into whole messages for whole-messages.ts. It copies no message that lies in one piece. The
 * RPC library's decoders copy each, and dead copies of large messages wait for the collector.
 */
import { Code, ConnectError } from '@connectrpc/connect';
import { readAllBytes } from '@connectrpc/connect/protocol';
import { takeOver } from '../held/whole-messages.js';
import { tooLarge } from './hot/envelopes.js';

export interface Piece {
  readonly bytes: Uint8Array;
  /** To be called when `bytes` are needed no more. */
  readonly release: (() => void) | undefined;
}

export interface SplitEnvelope extends Piece {
  readonly flags: number;
}

const headSize = 5;
const nothing = new Uint8Array(0);

/** @throws ConnectError in the library's words: a message over `max`, an envelope that ends early */
export async function* splitEnvelopes(body: AsyncIterable<Uint8Array>, max: number): AsyncGenerator<SplitEnvelope> {
  let rest: Uint8Array = nothing;
  let head: { readonly flags: number; readonly size: number } | undefined;
  for await (const chunk of body) {
    if (head !== undefined && rest.length === 0 && chunk.length === head.size) {
      const { flags } = head;
      head = undefined;
      yield { flags, bytes: chunk, release: takeOver(chunk) };
      continue;
    }
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (;;) {
      if (head === undefined) {
        if (rest.length < headSize) break;
        const size = new DataView(rest.buffer, rest.byteOffset).getUint32(1);
        head = { flags: rest[0] as number, size };
        if (size > max) throw tooLarge(size, max);
        rest = rest.subarray(headSize);
      }
      if (rest.length < head.size) break;
      const { flags, size } = head;
      head = undefined;
      const bytes = rest.subarray(0, size);
      rest = rest.subarray(size);
      yield { flags, bytes, release: undefined };
    }
  }
  // A head without a byte of its message passes for an end, as in the library.
  if (rest.length > 0) throw new ConnectError('protocol error: incomplete envelope', Code.InvalidArgument);
}

/**
 * All of a body without envelopes.
 * @param stated its size, as a header has it
 * @throws ConnectError in the library's words: more than `max`, not as many as stated
 */
export async function onePiece(body: AsyncIterable<Uint8Array>, max: number, stated: string | null): Promise<Piece> {
  if (stated !== null) return { bytes: await readAllBytes(body, max, stated), release: undefined };
  const chunks = body[Symbol.asyncIterator]();
  const first = await chunks.next();
  if (first.done === true) return { bytes: nothing, release: undefined };
  const bytes = first.value;
  const release = takeOver(bytes);
  const second = await chunks.next();
  if (second.done === true && bytes.length <= max) return { bytes, release };
  async function* all(): AsyncGenerator<Uint8Array> {
    yield bytes;
    for (let next = second; next.done !== true; next = await chunks.next()) yield next.value;
  }
  return { bytes: await readAllBytes(all(), max, null), release };
}
