/**
 * One HTTP/2 connection of unary calls over a plain socket (lib/testing/h2-frames.ts). node:http2 as a client takes as much CPU a
 * call as the gateway that is measured: 3.5 and 4.0 CPU-s per million events in batches of 20, beside the gateway with 3.7 and 4.0. This
 * takes 1.6 and 1.8 (`npm run bench -- unary`, in turn).
 */
import { connect, type Socket } from 'node:net';
import {
  FrameCutter,
  flag,
  frame,
  frameHead,
  frameType,
  preface,
  putHead,
  type RequestHeaders,
} from '../lib/testing/h2-frames.js';
import { HeaderBlockReader } from '../lib/testing/h2-header-blocks.js';

/** A call, and what has come of its answer so far. */
export interface PlainCall {
  /** The body of the request. They stay as they are until the call is over. */
  readonly bytes: Buffer;
  body: Buffer | undefined;
  /** gRPC's. */
  status: string | undefined;
  statusMessage: string;
}

/** @typeParam Call what the caller keeps of a call */
export interface PlainEvents<Call extends PlainCall> {
  /** Calls may be made. */
  open(): void;
  /** Comes once for each call. @param problem why there is no whole answer */
  over(call: Call, problem: string | undefined): void;
  /** Comes once: the connection is gone, and `over` has come for all its calls. */
  lost(reason: string): void;
}

/** How much of a call has left, and how much of it the server takes. */
interface Sending<Call> {
  readonly call: Call;
  readonly stream: number;
  left: number;
  window: number;
}

/** Stream numbers end at 2^31; a connection is left long before. */
const lastStream = 2 ** 30;
const fullWindow = 2 ** 31 - 1;
/** Windows are given back when this much has been read. */
const creditBytes = 2 ** 30;
const setting = { headerTable: 1, window: 4, frameSize: 5 } as const;

const uint32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

export class PlainConnection<Call extends PlainCall> {
  private phase: 'opening' | 'open' | 'leaving' | 'lost' = 'opening';
  private readonly socket: Socket;
  private readonly blocks = new HeaderBlockReader();
  private readonly calls = new Map<number, Sending<Call>>();
  /** Calls of which not all has been sent for want of room, in their order. */
  private readonly unsent = new Set<Sending<Call>>();
  /** Frames to write in one go at the end of this turn. */
  private queue: Buffer[] = [];
  private nextStream = 1;
  /** Bytes that the server takes on the connection, and at the start of each stream. */
  private window = 65_535;
  private streamWindow = 65_535;
  private largestFrame = 16_384;
  private received = 0;

  constructor(
    to: { readonly host: string; readonly port: number },
    private readonly headers: RequestHeaders,
    private readonly events: PlainEvents<Call>,
  ) {
    this.socket = connect({ ...to, noDelay: true });
    const cutter = new FrameCutter();
    this.socket.on('connect', () => this.greet());
    this.socket.on('data', (chunk: Buffer) => {
      try {
        cutter.push(chunk, (type, flags, stream, payload) => this.take(type, flags, stream, payload));
      } catch (error) {
        this.lose(error instanceof Error ? error.message : String(error));
      }
      if (this.phase === 'leaving' && this.calls.size === 0) this.lose('the server is leaving');
    });
    this.socket.on('error', (error) => this.lose(error.message));
    this.socket.on('close', () => this.lose('connection closed'));
  }

  get ready(): boolean {
    return this.phase === 'open';
  }

  /** What there is no room for waits here, as in any client. */
  call(call: Call): void {
    const stream = this.nextStream;
    this.nextStream += 2;
    if (this.nextStream > lastStream) this.phase = 'leaving';
    const sending = { call, stream, left: 0, window: this.streamWindow };
    this.calls.set(stream, sending);
    this.write(sending, stream === 1 ? this.headers.first : this.headers.later);
  }

  destroy(): void {
    this.phase = 'lost';
    this.socket.destroy();
  }

  private lose(reason: string): void {
    if (this.phase === 'lost') return;
    this.destroy();
    this.unsent.clear();
    for (const [stream] of this.calls) this.finish(stream, reason);
    this.events.lost(reason);
  }

  private greet(): void {
    const settings = Buffer.alloc(12);
    settings.writeUInt16BE(2, 0); // no push
    settings.writeUInt16BE(setting.window, 6); // as large a window for each stream as there is
    settings.writeUInt32BE(fullWindow, 8);
    const credit = frame(frameType.windowUpdate, 0, 0, uint32(fullWindow - 65_535));
    this.socket.write(Buffer.concat([preface, frame(frameType.settings, 0, 0, settings), credit]));
  }

  private take(type: number, flags: number, stream: number, payload: Buffer): void {
    if (type === frameType.data) this.takeData(flags, stream, payload);
    else if (type === frameType.headers) this.takeHeaders(flags, stream, payload);
    else if (type === frameType.windowUpdate) this.takeWindow(stream, payload.readUInt32BE(0));
    else if (type === frameType.reset) this.finish(stream, 'the call was reset');
    else if (type === frameType.goaway) this.takeGoaway(payload.readUInt32BE(0) & fullWindow);
    else if ((flags & flag.ack) !== 0) return;
    else if (type === frameType.settings) this.takeSettings(payload);
    else if (type === frameType.ping) this.put(frame(frameType.ping, flag.ack, 0, payload));
  }

  private takeData(flags: number, stream: number, payload: Buffer): void {
    const call = this.calls.get(stream)?.call;
    if (call !== undefined) {
      const bytes = unpadded(flags, payload, 0);
      call.body = call.body === undefined ? Buffer.from(bytes) : Buffer.concat([call.body, bytes]);
    }
    this.received += payload.length;
    if (this.received > creditBytes) {
      this.put(frame(frameType.windowUpdate, 0, 0, uint32(this.received)));
      this.received = 0;
    }
    if ((flags & flag.endStream) !== 0) this.finish(stream, undefined);
  }

  /** The header block of a call that has ended is read, too: later blocks refer to its entries. */
  private takeHeaders(flags: number, stream: number, payload: Buffer): void {
    if ((flags & flag.endHeaders) === 0) throw new Error("an answer's headers come in more than one frame");
    const call = this.calls.get(stream)?.call;
    this.blocks.read(unpadded(flags, payload, (flags & flag.priority) !== 0 ? 5 : 0), (name, value) => {
      if (call === undefined) return;
      if (name === 'grpc-status') call.status = value;
      else if (name === 'grpc-message') call.statusMessage = value;
    });
    if ((flags & flag.endStream) !== 0) this.finish(stream, undefined);
  }

  private takeSettings(payload: Buffer): void {
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      const id = payload.readUInt16BE(at);
      const value = payload.readUInt32BE(at + 2);
      if (id === setting.window) {
        // It changes the windows of open streams too, which may fall below 0 (RFC 9113, 6.9.2).
        for (const sending of this.calls.values()) sending.window += value - this.streamWindow;
        this.streamWindow = value;
      } else if (id === setting.frameSize) {
        this.largestFrame = value;
      } else if (id === setting.headerTable && value < 4096) {
        throw new Error('the server wants a smaller table of headers than this client keeps');
      }
    }
    this.put(frame(frameType.settings, flag.ack, 0));
    if (this.phase === 'opening') this.phase = 'open';
    this.writeOn();
    this.events.open();
  }

  private takeWindow(stream: number, by: number): void {
    if (stream === 0) {
      this.window += by;
      this.writeOn();
      return;
    }
    const sending = this.calls.get(stream);
    if (sending === undefined) return;
    sending.window += by;
    if (this.unsent.has(sending)) this.write(sending);
  }

  private takeGoaway(last: number): void {
    this.phase = 'leaving';
    for (const [stream] of this.calls) if (stream > last) this.finish(stream, 'the server is leaving');
  }

  private finish(stream: number, problem: string | undefined): void {
    const sending = this.calls.get(stream);
    if (sending === undefined) return;
    this.calls.delete(stream);
    this.unsent.delete(sending);
    this.events.over(sending.call, problem);
  }

  private writeOn(): void {
    for (const sending of this.unsent) {
      if (this.window <= 0) return;
      this.write(sending);
    }
  }

  /** Sends as much of a call as there is room for. @param block its headers, the first time */
  private write(sending: Sending<Call>, block?: Buffer): void {
    const { call, stream } = sending;
    const body = Math.max(0, Math.min(call.bytes.length - sending.left, sending.window, this.window));
    // The copy lets headers and body go out together.
    const heads = Math.ceil(body / this.largestFrame) * frameHead;
    const out = Buffer.allocUnsafe((block === undefined ? 0 : frameHead + block.length) + heads + body);
    let at = 0;
    if (block !== undefined) {
      putHead(out, 0, block.length, frameType.headers, flag.endHeaders, stream);
      at = frameHead + block.copy(out, frameHead);
    }
    const end = sending.left + body;
    while (sending.left < end) {
      const length = Math.min(this.largestFrame, end - sending.left);
      const last = sending.left + length === call.bytes.length;
      putHead(out, at, length, frameType.data, last ? flag.endStream : 0, stream);
      call.bytes.copy(out, at + frameHead, sending.left, sending.left + length);
      at += frameHead + length;
      sending.left += length;
    }
    this.window -= body;
    sending.window -= body;
    if (end < call.bytes.length) this.unsent.add(sending);
    else this.unsent.delete(sending);
    if (out.length > 0) this.put(out);
  }

  private put(bytes: Buffer): void {
    if (this.queue.length === 0) process.nextTick(() => this.flush());
    this.queue.push(bytes);
  }

  private flush(): void {
    const { queue } = this;
    this.queue = [];
    if (this.phase === 'lost') return;
    this.socket.cork();
    for (const bytes of queue) this.socket.write(bytes);
    this.socket.uncork();
  }
}

/** @param from bytes before the content that are not padding's */
function unpadded(flags: number, payload: Buffer, from: number): Buffer {
  if ((flags & flag.padded) === 0) return from === 0 ? payload : payload.subarray(from);
  return payload.subarray(1 + from, payload.length - payload[0]!);
}
