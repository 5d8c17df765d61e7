/**
 * Cuts length-prefixed messages (gRPC, gRPC-Web and Connect streams have the same five bytes in front) out of the chunks that
 * HTTP/2 delivers. A message that lies within one chunk is not copied, unless it would keep a much larger chunk alive; one that
 * spans chunks (75 kB come as five) is joined into a buffer that grows with it and is used again (message-buffers.ts).
 *
 * A class, because there is one per call: closures would be made for each.
 */
import { Code, ConnectError } from '@connectrpc/connect';
import { reservedFlags } from '../../held/envelope-flags.js';
import { detached } from '../../held/held-bytes.js';
import { GrowingMessage, type MessageBuffers } from '../../held/message-buffers.js';

export interface Envelope {
  readonly flags: number;
  readonly bytes: Buffer;
  /** To be called when `bytes` are needed no more. */
  readonly release: (() => void) | undefined;
}

const headSize = 5;
export class Envelopes {
  readonly #maxBytes: number;
  readonly #reserved: number;
  readonly #buffers: MessageBuffers;
  readonly #isRoomy: () => boolean;
  #head: Buffer | undefined;
  #headFilled = 0;
  #flags = 0;
  #size = 0;
  /** Of a message that spans chunks, from its first byte on: a head alone costs no memory. */
  #body: GrowingMessage | undefined;
  #chunk: Buffer | undefined;
  #at = 0;
  /** Chunks after the current one; there are none while the reader keeps up. */
  #waiting: Buffer[] | undefined;

  /**
   * @param reserved bits of the flags that have no meaning
   * @param isRoomy whether memory may be taken ahead of what comes
   */
  constructor(maxBytes: number, reserved: number, buffers: MessageBuffers, isRoomy: () => boolean = () => true) {
    this.#isRoomy = isRoomy;
    this.#maxBytes = maxBytes;
    this.#reserved = reserved;
    this.#buffers = buffers;
  }

  push(more: Buffer): void {
    if (this.#chunk === undefined) {
      this.#chunk = more;
      this.#at = 0;
    } else {
      this.#waiting ??= [];
      this.#waiting.push(more);
    }
  }

  /** The next whole message. @throws ConnectError when it is longer than allowed, in the library's words; SluiceError for reserved flags */
  next(): Envelope | undefined {
    while (this.#chunk !== undefined) {
      const chunk = this.#chunk;
      if (this.#headFilled < headSize) this.#readHead(chunk);
      if (this.#headFilled === headSize) {
        const size = this.#size;
        const left = chunk.length - this.#at;
        if (this.#body === undefined && left >= size) {
          const bytes = chunk.subarray(this.#at, this.#at + size);
          this.#at += size;
          this.#headFilled = 0;
          return { flags: this.#flags, bytes: detached(bytes), release: undefined };
        }
        if (left > 0) {
          this.#body ??= new GrowingMessage(this.#buffers, size, this.#isRoomy);
          const body = this.#body;
          const part = Math.min(left, size - body.filled);
          body.append(chunk, this.#at, this.#at + part);
          this.#at += part;
          if (body.filled === size) {
            this.#body = undefined;
            this.#headFilled = 0;
            return { flags: this.#flags, ...body.take() };
          }
        }
      }
      // Used up.
      this.#chunk = this.#waiting?.shift();
      this.#at = 0;
    }
    return undefined;
  }

  #readHead(chunk: Buffer): void {
    let head = chunk;
    let from = this.#at;
    if (this.#headFilled === 0 && chunk.length - from >= headSize) {
      this.#at += headSize;
    } else {
      this.#head ??= Buffer.allocUnsafe(headSize);
      while (this.#headFilled < headSize && this.#at < chunk.length) {
        this.#head[this.#headFilled++] = chunk[this.#at++] as number;
      }
      if (this.#headFilled < headSize) return;
      head = this.#head;
      from = 0;
    }
    this.#headFilled = headSize;
    this.#flags = head[from] as number;
    this.#size = head.readUInt32BE(from + 1);
    if ((this.#flags & this.#reserved) !== 0) throw reservedFlags(this.#flags & this.#reserved);
    if (this.#size > this.#maxBytes) throw tooLarge(this.#size, this.#maxBytes);
  }

  /** The bytes so far end within a message. As the library counts: a head without a byte of its message passes for an end. */
  get incomplete(): boolean {
    return this.#headFilled === headSize ? this.#body !== undefined : this.#headFilled > 0;
  }

  /** Memory that is held until more comes, or until the reader asks for the next message, bytes. */
  get held(): number {
    let bytes = this.#body?.held ?? 0;
    if (this.#chunk !== undefined) bytes += this.#chunk.length - this.#at;
    if (this.#waiting !== undefined) for (const chunk of this.#waiting) bytes += chunk.length;
    return bytes;
  }

  /** For a reader that does not ask for a while: chunks that are left keep no larger ones alive. */
  detach(): void {
    if (this.#chunk !== undefined) {
      this.#chunk = detached(this.#chunk.subarray(this.#at));
      this.#at = 0;
    }
    if (this.#waiting !== undefined) this.#waiting = this.#waiting.map(detached);
  }

  /** Gives the memory of an unfinished message back. */
  close(): void {
    this.#body?.close();
    this.#body = undefined;
    this.#chunk = undefined;
    this.#waiting = undefined;
  }
}

/** In the library's words. @param size when it is known */
export function tooLarge(size: number | undefined, max: number): ConnectError {
  return new ConnectError(
    `message size ${size === undefined ? '' : `${size} `}is larger than configured readMaxBytes ${max}`,
    Code.ResourceExhausted,
  );
}
