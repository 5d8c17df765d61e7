/**
 * Parks a request stream that is not read for now. Node keeps the bytes that still come, up to the flow-control window, as a list of
 * pieces. Each piece costs 200 bytes, and keeps the read of 64 KiB alive that brought it (FACT-34). A peer that sends one byte a frame
 * makes 13 MB of a window of 64 KiB. So what comes while a stream is parked is copied into one buffer, and counted.
 *
 * Node hands each piece to `stream.push`, a public method, which is replaced while the stream is parked.
 */
import { Readable } from 'node:stream';
import { connectionKey, type OnConnection } from '../listener/connection-entry.js';
import { wideWindow } from '../listener/stream-windows.js';

const smallest = 1024;

const parkedKey = Symbol('parked');
type ParkedStream = Readable & OnConnection & { [parkedKey]?: ParkedInput };

/** One function for all streams: calls that wait for a seat are many, and most of them are small. */
function pushParked(this: ParkedStream, chunk: unknown): boolean {
  return this[parkedKey]?.take(chunk) ?? false;
}

export class ParkedInput {
  #gathered: Buffer | undefined;
  #filled = 0;
  /** Until the request has ended, or the stream goes on. */
  #open = true;
  readonly #before: number;
  /** What was in the place of `push`. */
  readonly #push: Readable['push'];

  /**
   * Pauses the stream.
   * @param paused what is paused and resumed: the stream itself, or the request that Node makes of it
   * @param onMore so many bytes have come
   */
  constructor(
    private readonly stream: ParkedStream,
    private readonly paused: Readable,
    private readonly onMore: (came: number) => void,
  ) {
    paused.pause();
    // What lay there is in pieces that are there already: at most one read of the connection.
    this.#before = stream.readableLength + (paused === stream ? 0 : paused.readableLength);
    this.#push = stream.push;
    stream[parkedKey] = this;
    stream.push = pushParked;
  }

  /** What Node pushes. */
  take(chunk: unknown): boolean {
    if (chunk instanceof Uint8Array) {
      this.#gather(chunk);
      return false;
    }
    this.#giveBack();
    return this.stream.push(chunk);
  }

  /** Memory that the stream holds, bytes. */
  get bytes(): number {
    return this.#before + (this.#gathered?.length ?? 0);
  }

  /** The stream goes on with what has come. */
  resume(): void {
    this.#giveBack();
    this.paused.resume();
  }

  /** What has come is forgotten, and what still comes is read and dropped. */
  drop(): void {
    this.#gathered = undefined;
    this.resume();
  }

  #gather(chunk: Uint8Array): void {
    const needed = this.#filled + chunk.length;
    if (this.#gathered === undefined || needed > this.#gathered.length) {
      const more = Buffer.allocUnsafeSlow(Math.max(smallest, needed, Math.min(2 * this.#filled, wideWindow)));
      this.#gathered?.copy(more, 0, 0, this.#filled);
      this.#gathered = more;
    }
    this.#gathered.set(chunk, this.#filled);
    this.#filled = needed;
    // The connection counts what has arrived of its calls, and so does its own `push`, which does not see this.
    const entry = this.stream[connectionKey];
    if (entry !== undefined) entry.payload += chunk.length;
    this.onMore(chunk.length);
  }

  #giveBack(): void {
    if (!this.#open) return;
    this.#open = false;
    this.stream.push = this.#push;
    const gathered = this.#gathered;
    this.#gathered = undefined;
    if (gathered === undefined || this.stream.destroyed) return;
    Readable.prototype.push.call(this.stream, gathered.subarray(0, this.#filled));
  }
}
