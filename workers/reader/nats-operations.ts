/**
 * The NATS protocol as a server sends it: operations, told apart in the buffers that the socket is read into. A message is a window on
 * those bytes. A line is text.
 */
import { KiB, MiB } from '../../lib/units.js';
import type { BufferPool, ReadBuffer } from './buffer-pool.js';

/** What the server says of a delivered message. */
export interface Delivery {
  readonly sequence: number;
  /** Number of the delivery, from 1 on for each consumer. */
  readonly delivery: number;
  readonly timeMs: number;
  readonly data: Uint8Array;
  /** Where the data lie; undefined when they are a buffer of their own. To be held before the callback returns. */
  readonly buffer: ReadBuffer | undefined;
}

export interface OperationHandlers {
  /** An operation without a payload, without its end of line. */
  line(text: string): void;
  message(delivery: Delivery): void;
  /** An answer to a pull instead of a message; `subject` is where it was sent. */
  status(subject: string, code: number, description: string): void;
  /** The server sent what cannot be read. */
  broken(why: string): void;
}

/** Longest line of the protocol; INFO of a large cluster is some kB. */
const maxLine = 256 * KiB;
/** Largest message that nats-server can be set to allow. */
const maxMessage = 64 * MiB;
/** What is left of a buffer for the next read at least. */
const minRead = 4_096;
const [space, dot, lineFeed, carriageReturn] = [0x20, 0x2e, 0x0a, 0x0d];
/** First bytes of MSG and HMSG, in lower case. */
const [letterM, letterH] = [0x6d, 0x68];

/**
 * Numbers of a reply subject, `$JS.ACK.[domain.account.]stream.consumer.deliveries.stream seq.consumer seq.time (ns).pending[.random]`.
 * Read as bytes, without making strings of it.
 */
export function deliveryAt(
  bytes: Uint8Array,
  from: number,
  to: number,
): { sequence: number; delivery: number; timeMs: number } | undefined {
  let tokens = 1;
  for (let i = from; i < to; i++) if (bytes[i] === dot) tokens++;
  if (tokens < 9) return undefined;
  let skip = tokens === 9 ? 5 : 7;
  let at = from;
  while (skip > 0) if (bytes[at++] === dot) skip--;
  const number = (leaveOut: number): number => {
    let end = at;
    while (end < to && bytes[end] !== dot) end++;
    let value = 0;
    for (let i = at; i < end - leaveOut; i++) value = value * 10 + (bytes[i]! - 0x30);
    at = end + 1;
    return value;
  };
  return { sequence: number(0), delivery: number(0), timeMs: number(6) };
}

/** `NATS/1.0 409 Message Size Exceeds MaxBytes`: code and description; code 0 when the headers are just headers. */
function statusOf(headers: string): { code: number; description: string } {
  const match = /^NATS\/1\.0 +(\d{3})(?: +([^\r\n]*))?/.exec(headers);
  return { code: Number(match?.[1] ?? 0), description: match?.[2] ?? '' };
}

/** Reads operations. The socket reads into {@link room}, and {@link read} is called with what came. */
export class OperationReader {
  private buffer: ReadBuffer;
  /** The buffer holds the operation that is being read from `start` on, and bytes up to `end`. */
  private start = 0;
  private end = 0;
  /** Up to here no end of a line was found. */
  private looked = 0;
  /** Bytes of the message from `start` on; 0 while its line is not whole. */
  private need = 0;
  /** Within the message, from `start` on. */
  private readonly at = { subjectEnd: 0, reply: 0, replyEnd: 0, headers: 0, data: 0 };
  private closed = false;

  constructor(
    private readonly buffers: BufferPool,
    private readonly on: OperationHandlers,
  ) {
    this.buffer = buffers.first();
  }

  /** Where the next read goes. Asked after each read, and once before. */
  room(): Buffer {
    if (this.start === this.end && this.buffer.held === 0 && !this.buffer.spoiled) {
      this.start = 0;
      this.end = 0;
      this.looked = 0;
    }
    const size = this.buffer.bytes.length;
    if (this.need > size - this.start || size - this.end < minRead) this.roll(Math.max(this.need, minRead));
    return this.buffer.bytes.subarray(this.end);
  }

  /** So many bytes came. */
  read(count: number): void {
    this.end += count;
    while (!this.closed) {
      if (this.need === 0) {
        if (!this.readLine()) return;
      } else {
        if (this.end - this.start < this.need) return;
        this.deliver();
        this.start += this.need;
        this.looked = this.start;
        this.need = 0;
      }
    }
  }

  /** Nothing is read any more. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.buffers.filled(this.buffer);
  }

  /** Goes on in a new buffer that has room for so many bytes of the operation; what came of it moves along. */
  private roll(bytes: number): void {
    const next = this.buffers.take(bytes);
    this.buffer.bytes.copy(next.bytes, 0, this.start, this.end);
    this.buffers.filled(this.buffer);
    this.buffer = next;
    this.end -= this.start;
    this.looked -= this.start;
    this.start = 0;
  }

  private text(from: number, to: number): string {
    return this.buffer.bytes.toString('latin1', from, to);
  }

  /** Reads the next line; false while it is not whole. */
  private readLine(): boolean {
    const { bytes } = this.buffer;
    while (this.looked < this.end && bytes[this.looked] !== lineFeed) this.looked++;
    if (this.looked - this.start > maxLine) {
      this.on.broken(`the server sent a line of more than ${maxLine} bytes`);
      return false;
    }
    if (this.looked === this.end) return false;
    const from = this.start;
    const to = bytes[this.looked - 1] === carriageReturn ? this.looked - 1 : this.looked;
    this.looked++;
    const first = bytes[from]! | 0x20;
    if (first === letterM || first === letterH) this.readMessageLine(from, to, first === letterH);
    else {
      this.start = this.looked;
      this.on.line(this.text(from, to));
    }
    return true;
  }

  /** `MSG subject sid [reply] bytes`, `HMSG subject sid [reply] header-bytes bytes`; `to` is without the line's end. */
  private readMessageLine(from: number, to: number, hasHeaders: boolean): void {
    const { bytes } = this.buffer;
    const words: number[] = [];
    for (let i = from; i < to; i++) if (bytes[i] === space && bytes[i + 1] !== space) words.push(i + 1);
    const numbers = hasHeaders ? 2 : 1;
    const hasReply = words.length === 3 + numbers;
    const lastWord = words[words.length - 1] ?? to;
    const size = Number(this.text(lastWord, to));
    const headers = hasHeaders ? Number(this.text(words[words.length - 2] ?? to, lastWord - 1)) : 0;
    const isSound = hasReply || words.length === 2 + numbers;
    if (!isSound || !(size >= 0 && size <= maxMessage && headers >= 0 && headers <= size)) {
      this.on.broken(`the server sent "${this.text(from, Math.min(to, from + 200))}"`);
      return;
    }
    const { at } = this;
    at.subjectEnd = words[1]! - 1 - from;
    at.reply = hasReply ? words[2]! - from : 0;
    at.replyEnd = hasReply ? words[3]! - 1 - from : 0;
    at.headers = this.looked - from;
    at.data = at.headers + headers;
    this.need = at.headers + size + 2;
  }

  private deliver(): void {
    const { buffer, start, at } = this;
    const { bytes } = buffer;
    const data = bytes.subarray(start + at.data, start + this.need - 2);
    if (data.length === 0 && at.data > at.headers) {
      const { code, description } = statusOf(this.text(start + at.headers, start + at.data));
      if (code > 0) {
        this.on.status(this.text(bytes.indexOf(space, start) + 1, start + at.subjectEnd), code, description);
        return;
      }
    }
    const info = deliveryAt(bytes, start + at.reply, start + at.replyEnd);
    if (info === undefined) {
      this.on.broken(`a message came with the reply "${this.text(start + at.reply, start + at.replyEnd)}"`);
      return;
    }
    const { sequence, delivery, timeMs } = info;
    this.on.message({ sequence, delivery, timeMs, data, buffer });
  }
}
