/**
 * One HTTP/2 connection, frame by frame, from a client that keeps only the rules that it wants to keep. node:http2 would refuse to
 * send most of what an attack sends.
 */
import type { Socket } from 'node:net';
import { FrameSplitter, flag, frame, frameType, literalText, preface } from '../../lib/testing/h2-frames.js';
import { HeaderBlockReader } from '../../lib/testing/h2-header-blocks.js';
import type { Counts } from '../attack.js';
import { dial, opened, type Target, written } from './sockets.js';

export type Headers = readonly (readonly [string, string])[];

export const setting = { headerTable: 1, push: 2, streams: 3, window: 4, frameSize: 5, headerList: 6 } as const;

export interface H2Options {
  /** SETTINGS of this client, by number. @default none: 64 KiB of window */
  readonly settings?: Readonly<Record<number, number>>;
  /** Gives back the windows of what was read. @default true */
  readonly credits?: boolean;
}

interface Stream {
  /** Bytes that the gateway takes. */
  window: number;
  answered: boolean;
  /** The request is whole. */
  whole: boolean;
}

const largestFrame = 16_384;
const defaultWindow = 65_535;

/** A header block that changes no table: any number of them may be sent, on any connection. */
export const headerBlock = (headers: Headers): Buffer =>
  Buffer.from(headers.map(([name, value]) => `\0${literalText(name)}${literalText(value)}`).join(''), 'latin1');

export const settingsFrame = (settings: Readonly<Record<number, number>>): Buffer => {
  const entries = Object.entries(settings);
  const payload = Buffer.alloc(6 * entries.length);
  entries.forEach(([id, value], i) => {
    payload.writeUInt16BE(Number(id), 6 * i);
    payload.writeUInt32BE(value, 6 * i + 2);
  });
  return frame(frameType.settings, 0, 0, payload);
};

export function windowUpdate(stream: number, by: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(by);
  return frame(frameType.windowUpdate, 0, stream, payload);
}

export function resetFrame(stream: number, code = 8): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(code);
  return frame(frameType.reset, 0, stream, payload);
}

export class H2Peer {
  /** The gateway ended the connection, or asked for no more calls. */
  over = false;
  private readonly streams = new Map<number, Stream>();
  private readonly blocks = new HeaderBlockReader();
  private nextStream = 1;
  private window = defaultWindow;
  private streamWindow = defaultWindow;
  private received = 0;
  private wake: (() => void)[] = [];

  private constructor(
    readonly socket: Socket,
    private readonly counts: Counts,
    private readonly credits: boolean,
  ) {}

  /** Resolves when the gateway's SETTINGS have come. Undefined: the connection was not taken. */
  static async open(target: Target, counts: Counts, options: H2Options = {}): Promise<H2Peer | undefined> {
    const socket = dial(target, 'h2');
    const peer = new H2Peer(socket, counts, options.credits ?? true);
    const splitter = new FrameSplitter();
    counts.connections++;
    const ready = new Promise<boolean>((resolve) => {
      socket.on('data', (chunk: Buffer) => {
        counts.bytesIn += chunk.length;
        try {
          splitter.push(chunk, (...parts) => peer.take(...parts));
        } catch {
          socket.destroy();
        }
        if (peer.sawSettings) resolve(true);
      });
      socket.once('close', () => {
        peer.end();
        resolve(false);
      });
      setTimeout(resolve, 10_000, false).unref();
    });
    if (!(await opened(socket))) {
      counts.refused++;
      return undefined;
    }
    peer.put(Buffer.concat([preface, settingsFrame(options.settings ?? {})]));
    if (await ready) return peer;
    counts.refused++;
    socket.destroy();
    return undefined;
  }

  private sawSettings = false;

  /** Begins a call. @returns its stream */
  request(headers: Headers | Buffer, whole: boolean): number {
    const stream = this.nextStream;
    this.nextStream += 2;
    const block = Buffer.isBuffer(headers) ? headers : headerBlock(headers as Headers);
    this.streams.set(stream, { window: this.streamWindow, answered: false, whole });
    this.counts.sent++;
    this.put(frame(frameType.headers, flag.endHeaders | (whole ? flag.endStream : 0), stream, block));
    return stream;
  }

  /**
   * Sends a body, as the gateway's windows take it.
   * @param frameSize most bytes of a frame
   * @returns false when the stream or the connection is over
   */
  async send(stream: number, bytes: Uint8Array, whole: boolean, frameSize = largestFrame): Promise<boolean> {
    let at = 0;
    for (;;) {
      const known = this.streams.get(stream);
      if (known === undefined || this.socket.destroyed) return false;
      const room = Math.min(frameSize, bytes.length - at, this.window, known.window);
      if (room <= 0 && at < bytes.length) {
        await this.change();
        continue;
      }
      known.window -= room;
      this.window -= room;
      const last = whole && at + room === bytes.length;
      known.whole ||= last;
      const part = frame(frameType.data, last ? flag.endStream : 0, stream, bytes.subarray(at, at + room));
      at += room;
      if (!(await this.write(part))) return false;
      if (at === bytes.length) return true;
    }
  }

  reset(stream: number): void {
    this.streams.delete(stream);
    this.put(resetFrame(stream));
  }

  /** Bytes as they are. */
  put(bytes: Uint8Array): void {
    this.counts.bytesOut += bytes.length;
    if (!this.socket.destroyed) this.socket.write(bytes);
  }

  /** Bytes as they are, no faster than the gateway reads. False: the connection is over. */
  write(bytes: Uint8Array): Promise<boolean> {
    this.counts.bytesOut += bytes.length;
    return written(this.socket, bytes);
  }

  /** Streams that are open. */
  get open(): number {
    return this.streams.size;
  }

  /** Whole requests without an answer. */
  get unanswered(): number {
    let count = 0;
    for (const { answered, whole } of this.streams.values()) if (whole && !answered) count++;
    return count;
  }

  /** Resolves when all calls have their answer, or the time is over. */
  async untilAnswered(withinMs: number): Promise<void> {
    const until = performance.now() + withinMs;
    while (this.unanswered > 0 && performance.now() < until) await Promise.race([this.change(), after(20)]);
  }

  private change(): Promise<void> {
    return new Promise((resolve) => this.wake.push(resolve));
  }

  private end(): void {
    this.over = true;
    this.counts.refused += this.streams.size;
    this.streams.clear();
    this.wakeAll();
  }

  private wakeAll(): void {
    const { wake } = this;
    this.wake = [];
    for (const one of wake) one();
  }

  private take(type: number, flags: number, stream: number, payload: Buffer): void {
    if (type === frameType.settings && (flags & flag.ack) === 0) this.takeSettings(payload);
    else if (type === frameType.ping && (flags & flag.ack) === 0) this.put(frame(frameType.ping, flag.ack, 0, payload));
    else if (type === frameType.windowUpdate) this.takeWindow(stream, payload.readUInt32BE(0));
    else if (type === frameType.goaway) this.over = true;
    else if (type === frameType.headers) this.takeHeaders(stream, payload, flags);
    else if (type === frameType.data) this.takeData(stream, payload, flags);
    else if (type === frameType.reset) {
      const known = this.streams.get(stream);
      if (known !== undefined && !known.answered) this.counts.refused++;
      this.streams.delete(stream);
    }
    this.wakeAll();
  }

  private takeSettings(payload: Buffer): void {
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      if (payload.readUInt16BE(at) !== setting.window) continue;
      const value = payload.readUInt32BE(at + 2);
      for (const one of this.streams.values()) one.window += value - this.streamWindow;
      this.streamWindow = value;
    }
    this.sawSettings = true;
    this.put(frame(frameType.settings, flag.ack, 0));
  }

  private takeWindow(stream: number, by: number): void {
    if (stream === 0) this.window += by;
    else {
      const known = this.streams.get(stream);
      if (known !== undefined) known.window += by;
    }
  }

  private takeHeaders(stream: number, payload: Buffer, flags: number): void {
    const known = this.streams.get(stream);
    if (known !== undefined && !known.answered) {
      known.answered = true;
      this.counts.answered++;
    }
    this.blocks.read(payload, (name, value) => {
      if (name === ':status' && value !== '200') this.told(value);
      if (name === 'grpc-status') this.told(`grpc ${value}`);
    });
    if ((flags & flag.endStream) !== 0) this.streams.delete(stream);
  }

  private takeData(stream: number, payload: Buffer, flags: number): void {
    this.received += payload.length;
    if (this.credits && payload.length > 0) {
      if (this.streams.has(stream) && (flags & flag.endStream) === 0) this.put(windowUpdate(stream, payload.length));
      this.put(windowUpdate(0, payload.length));
    }
    if ((flags & flag.endStream) !== 0) this.streams.delete(stream);
  }

  private told(status: string): void {
    this.counts.statuses[status] = (this.counts.statuses[status] ?? 0) + 1;
  }
}

const after = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
