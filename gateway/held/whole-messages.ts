/**
 * Gives the RPC library whole messages. By itself it allocates the stated size when it has the head of a message, keeps each chunk, and
 * joins all of them whenever one comes; no budget counts that (FACT-48). Here parts gather in one buffer, which grows with them and is
 * counted. Flags of envelopes are checked here too.
 */
import { KiB } from '../../lib/units.js';
import { reservedFlags } from './envelope-flags.js';
import { detached } from './held-bytes.js';
import { GrowingMessage, type MessageBuffers } from './message-buffers.js';

export interface MessageOptions {
  /** The bits that have a meaning in the flags of an envelope; undefined: the body has no envelopes. */
  readonly known: number | undefined;
  /** A call with many messages: each is passed on by itself, since the library forgets those before one that is too large. */
  readonly streams: boolean;
  /** Most bytes of a message. A larger one is passed on as it comes: the library refuses it by its head. */
  readonly max: number;
  readonly buffers: MessageBuffers;
  readonly isRoomy: () => boolean;
  /** So many bytes are kept here, or by the library. */
  readonly keep: (bytes: number) => void;
}

/** @throws SluiceError request_malformed, when all before the odd envelope is passed on */
export function wholeMessages(chunks: AsyncIterable<Uint8Array>, options: MessageOptions): AsyncGenerator<Uint8Array> {
  return options.known === undefined ? whole(chunks, options) : messages(chunks, options, options.known);
}

/** Messages that are passed on in memory that is used again: what gives it back. */
const owned = new WeakMap<Uint8Array, () => void>();

/**
 * Makes the caller the owner of a message that it has got as a chunk. Without that its memory is used again as soon as the next chunk is
 * asked for.
 * @returns what gives the memory back; undefined: it is not used again
 */
export function takeOver(chunk: Uint8Array): (() => void) | undefined {
  const release = owned.get(chunk);
  owned.delete(chunk);
  return release;
}

async function* lent(message: GrowingMessage): AsyncGenerator<Uint8Array> {
  const { bytes, release } = message.take();
  if (release !== undefined) owned.set(bytes, release);
  yield bytes;
  // The reader has a copy.
  takeOver(bytes)?.();
}

/** A body of this size that comes in parts may be long. */
const longBytes = 64 * KiB;

/** A body without envelopes is one message. */
async function* whole(
  chunks: AsyncIterable<Uint8Array>,
  { max, buffers, isRoomy, keep }: MessageOptions,
): AsyncGenerator<Uint8Array> {
  let came = 0;
  const message = new GrowingMessage(buffers, max, () => came > longBytes && isRoomy());
  try {
    for await (const chunk of chunks as AsyncIterable<Buffer>) {
      came += chunk.length;
      if (came <= max) {
        message.append(chunk, 0, chunk.length);
        keep(message.held);
        continue;
      }
      // The library refuses it by what it has counted.
      if (message.filled > 0) yield message.take().bytes;
      keep(came);
      yield detached(chunk);
    }
    if (message.filled > 0) yield* lent(message);
  } finally {
    message.close();
  }
}

const headSize = 5;

// biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one pass over each chunk; a generator inside it would cost a promise for each message
async function* messages(
  chunks: AsyncIterable<Uint8Array>,
  { streams, max, buffers, isRoomy, keep }: MessageOptions,
  known: number,
): AsyncGenerator<Uint8Array> {
  const head = Buffer.alloc(headSize);
  let headFilled = 0;
  /** Due of the message whose head is read. */
  let left = 0;
  /** Gathers it, when it is not whole in the chunk in which its head began. */
  let message: GrowingMessage | undefined;
  /** The library keeps the messages of a single call until its end. */
  let passed = 0;
  try {
    for await (const chunk of chunks as AsyncIterable<Buffer>) {
      /** What is neither passed on nor gathered begins here, and so does a head. */
      let from = 0;
      let headAt = -1;
      for (let at = 0; at < chunk.length; ) {
        if (left > 0) {
          const part = Math.min(left, chunk.length - at);
          left -= part;
          at += part;
          if (message !== undefined) {
            message.append(chunk, at - part, at);
            from = at;
            if (left > 0) continue;
            const { filled } = message;
            if (!streams) passed += filled;
            keep(streams ? filled : passed);
            yield Buffer.from(head);
            yield* lent(message);
            message = undefined;
          }
        } else {
          if (headFilled === 0) headAt = at;
          head[headFilled++] = chunk[at++] as number;
          if (headFilled < headSize) continue;
          headFilled = 0;
          const unknown = (head[0] as number) & ~known;
          if (unknown !== 0) throw reservedFlags(unknown);
          left = head.readUInt32BE(1);
          const fits = left <= chunk.length - at || left > max;
          if (headAt < 0 || !fits) {
            if (headAt > from) yield chunk.subarray(from, headAt);
            from = at;
            if (left > 0 && left <= max) message = new GrowingMessage(buffers, left, isRoomy);
            else yield Buffer.from(head);
          }
        }
        if (left > 0 || !streams || from === at) continue;
        keep(at - from);
        yield detached(chunk.subarray(from, at));
        from = at;
      }
      // A part of a head is here already.
      const end = headFilled === 0 ? chunk.length : Math.max(headAt, 0);
      if (from < end) {
        if (!streams) passed += end - from;
        yield detached(chunk.subarray(from, end));
      }
      keep(passed + (message?.held ?? 0));
    }
    // The library says what is wrong with a message that ends early, or with its head.
    if (message !== undefined) yield Buffer.from(head);
    if (message !== undefined && message.filled > 0) yield message.take().bytes;
    if (headFilled > 0) yield head.subarray(0, headFilled);
  } finally {
    message?.close();
  }
}
