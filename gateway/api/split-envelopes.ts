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
  const splitter = new EnvelopeSplitter(max);
  for await (const chunk of body) {
    const whole = splitter.wholeIn(chunk);
    if (whole !== undefined) {
      yield whole;
      continue;
    }
    splitter.push(chunk);
    for (let next = splitter.next(); next !== undefined; next = splitter.next()) yield next;
  }
  // A head without a byte of its message passes for an end, as in the library.
  if (splitter.held > 0) throw new ConnectError('protocol error: incomplete envelope', Code.InvalidArgument);
}

class EnvelopeSplitter {
  readonly #max: number;
  #rest: Uint8Array = nothing;
  #head: { readonly flags: number; readonly size: number } | undefined;

  constructor(max: number) {
    this.#max = max;
  }

  get held(): number {
    return this.#rest.length;
  }

  /** The message whose head came last, when the chunk is just that: it is not copied. */
  wholeIn(chunk: Uint8Array): SplitEnvelope | undefined {
    if (this.#head === undefined || this.#rest.length > 0 || chunk.length !== this.#head.size) return undefined;
    const { flags } = this.#head;
    this.#head = undefined;
    return { flags, bytes: chunk, release: takeOver(chunk) };
  }

  push(chunk: Uint8Array): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
  }

  next(): SplitEnvelope | undefined {
    this.#head ??= this.#readHead();
    if (this.#head === undefined || this.#rest.length < this.#head.size) return undefined;
    const { flags, size } = this.#head;
    this.#head = undefined;
    const bytes = this.#rest.subarray(0, size);
    this.#rest = this.#rest.subarray(size);
    return { flags, bytes, release: undefined };
  }

  #readHead(): { readonly flags: number; readonly size: number } | undefined {
    if (this.#rest.length < headSize) return undefined;
    const { buffer, byteOffset } = this.#rest;
    const flags = this.#rest[0] as number;
    const size = new DataView(buffer, byteOffset).getUint32(1);
    if (size > this.#max) throw tooLarge(size, this.#max);
    this.#rest = this.#rest.subarray(headSize);
    return { flags, size };
  }
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
