/** Sends requests over HTTP/2 frame by frame, several at a time on one connection, and sees what becomes of each. */
import type { Socket } from 'node:net';
import { integer } from '../../lib/testing/batches.js';
import { FrameSplitter, flag, frame, frameType, preface } from '../../lib/testing/h2-frames.js';
import { HeaderBlockReader } from '../../lib/testing/h2-header-blocks.js';
import { headerBlock, resetFrame, setting, settingsFrame, windowUpdate } from '../wire/h2.js';
import { dial, opened, type Target } from '../wire/sockets.js';
import { mayStayOpen, neverMs, type RequestOutcome, Wait } from './outcome.js';
import type { Plan } from './plan.js';

const largestFrame = 16_384;
/** For the gateway's first frame, on a busy machine. */
const openWithinMs = 10_000;
const largeWindow = 2 ** 30;

interface Stream {
  readonly settle: (outcome: RequestOutcome) => void;
  window: number;
  status: string;
  grpcStatus: string | undefined;
  readonly chunks: Buffer[];
}

export class FrameConnection {
  /** No more requests are to be begun here. */
  over = false;
  /** Requests so far. */
  count = 0;
  private readonly streams = new Map<number, Stream>();
  private readonly splitter = new FrameSplitter();
  private readonly blocks = new HeaderBlockReader();
  private nextStream = 1;
  private window = 65_535;
  private streamWindow = 65_535;
  private ready = false;
  private wake: (() => void)[] = [];

  private constructor(private readonly socket: Socket) {}

  /** Undefined: the connection was not taken. */
  static async open(target: Target): Promise<FrameConnection | undefined> {
    const socket = dial(target, 'h2');
    const connection = new FrameConnection(socket);
    socket.on('data', (chunk: Buffer) => {
      try {
        connection.splitter.push(chunk, (...parts) => connection.take(...parts));
      } catch {
        socket.destroy();
      }
    });
    socket.once('close', () => connection.end());
    if (!(await opened(socket))) return undefined;
    socket.write(
      Buffer.concat([preface, settingsFrame({ [setting.window]: largeWindow }), windowUpdate(0, largeWindow - 65_535)]),
    );
    const until = performance.now() + openWithinMs;
    while (!connection.ready && !connection.over && performance.now() < until) await connection.change();
    if (connection.ready && !connection.over) return connection;
    socket.destroy();
    return undefined;
  }

  get open(): number {
    return this.streams.size;
  }

  close(): void {
    this.socket.destroy();
  }

  /** Sends the request of a plan, at a pace and in pieces that its generator draws. */
  async send(plan: Plan, authorization: string): Promise<RequestOutcome> {
    const { random, request } = plan;
    this.count++;
    const id = this.nextStream;
    this.nextStream += 2;
    let settle: Stream['settle'] = () => {};
    const settled = new Promise<RequestOutcome>((resolve) => {
      settle = resolve;
    });
    const stream: Stream = { settle, window: this.streamWindow, status: '', grpcStatus: undefined, chunks: [] };
    this.streams.set(id, stream);
    const block = headerBlock([
      [':method', request.method],
      [':scheme', 'http'],
      [':authority', 'gateway.example'],
      [':path', request.path],
      ['authorization', authorization],
      ...request.headers,
    ]);
    const bodiless = request.body.length === 0;
    this.put(frame(frameType.headers, flag.endHeaders | (bodiless ? flag.endStream : 0), id, block));
    const resetAt = plan.valid === undefined && random() < 0.03 ? integer(random, 0, request.body.length) : undefined;
    if (!bodiless && !(await this.body(id, stream, plan, resetAt))) return settled;
    if (resetAt !== undefined && !bodiless) {
      this.streams.delete(id);
      this.put(resetFrame(id));
      return { fate: 'given up' };
    }
    return this.inTime(id, stream, settled, request.path);
  }

  /** Frames of one turn of the event loop go in one write: a write for each took a fifth of the sender's time. */
  private put(bytes: Buffer): void {
    if (this.socket.writableCorked === 0) {
      this.socket.cork();
      process.nextTick(() => this.socket.uncork());
    }
    this.socket.write(bytes);
  }

  /** Sends the body up to `resetAt`. False: the stream is over. */
  private async body(id: number, stream: Stream, plan: Plan, resetAt: number | undefined): Promise<boolean> {
    const { random, request } = plan;
    const bytes = request.body;
    const piece = random() < 0.2 ? integer(random, 1, 64) : largestFrame;
    const slow = random() < 0.1 ? integer(random, 1, bytes.length) : -1;
    const end = resetAt ?? bytes.length;
    let at = 0;
    do {
      const room = Math.min(bytes.length > 4_096 ? largestFrame : piece, end - at, this.window, stream.window);
      if (room <= 0 && at < end) {
        if (!(await this.windowOpens(id, stream))) return false;
        continue;
      }
      if (slow >= at && slow < at + room) await new Promise((resolve) => setTimeout(resolve, 30));
      stream.window -= room;
      this.window -= room;
      const last = at + room === bytes.length;
      this.put(frame(frameType.data, last ? flag.endStream : 0, id, bytes.subarray(at, at + room)));
      at += room;
      if (!this.streams.has(id)) return false;
    } while (at < end);
    return true;
  }

  /** Waits until the stream may send. False: it is over. */
  private async windowOpens(id: number, stream: Stream): Promise<boolean> {
    const until = performance.now() + neverMs;
    while (this.window <= 0 || stream.window <= 0) {
      await this.change();
      // After GOAWAY too: what is under way is to be served.
      if (!this.streams.has(id)) return false;
      if (performance.now() > until) {
        this.settle(id, stream, 'silent');
        return false;
      }
    }
    return true;
  }

  private async inTime(
    id: number,
    stream: Stream,
    settled: Promise<RequestOutcome>,
    path: string,
  ): Promise<RequestOutcome> {
    let give: (fate: RequestOutcome['fate'], open?: boolean) => void = () => {};
    const given = new Promise<RequestOutcome>((resolve) => {
      give = (fate, isOpen) => resolve({ fate, answer: this.answerOf(stream), ...(isOpen ? { waitedMs: 0 } : {}) });
    });
    const wait = new Wait(
      () => {
        if (stream.status !== '' && mayStayOpen(path)) give('answered', true);
      },
      () => give(stream.status === '' ? 'silent' : 'unended'),
    );
    const outcome = await Promise.race([settled, given]);
    wait.cancel();
    const waitedMs = wait.ms;
    if (this.streams.delete(id)) this.socket.write(resetFrame(id));
    return { waitedMs, ...outcome };
  }

  private answerOf({ status, grpcStatus, chunks }: Stream): RequestOutcome['answer'] {
    return { status, grpcStatus, body: Buffer.concat(chunks) };
  }

  private change(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, 50);
      this.wake.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  private end(): void {
    this.over = true;
    for (const stream of this.streams.values()) stream.settle({ fate: stream.status === '' ? 'ended' : 'unended' });
    this.streams.clear();
    this.wakeAll();
  }

  private wakeAll(): void {
    for (const one of this.wake.splice(0)) one();
  }

  private take(type: number, flags: number, id: number, payload: Buffer): void {
    const isAck = (flags & flag.ack) !== 0;
    switch (type) {
      case frameType.settings:
        if (!isAck) this.takeSettings(payload);
        break;
      case frameType.ping:
        if (!isAck) this.socket.write(frame(frameType.ping, flag.ack, 0, payload));
        break;
      case frameType.windowUpdate:
        this.takeWindow(id, payload.readUInt32BE(0));
        break;
      case frameType.goaway:
        this.takeGoaway(payload.readUInt32BE(0));
        break;
      default:
        this.takeOfStream(type, flags, id, payload);
    }
    if (this.wake.length > 0) this.wakeAll();
  }

  private takeWindow(id: number, by: number): void {
    const stream = this.streams.get(id);
    if (id === 0) this.window += by;
    else if (stream !== undefined) stream.window += by;
  }

  private takeOfStream(type: number, flags: number, id: number, payload: Buffer): void {
    const stream = this.streams.get(id);
    // Also of a stream that is over: later blocks refer to this one.
    if (type === frameType.headers) this.takeHeaders(stream, payload);
    if (stream === undefined) return;
    if (type === frameType.data) stream.chunks.push(Buffer.from(payload));
    if (type === frameType.reset) this.settle(id, stream, stream.status === '' ? 'reset' : 'answered');
    const mayEnd = type === frameType.headers || type === frameType.data;
    if (mayEnd && (flags & flag.endStream) !== 0) this.settle(id, stream, 'answered');
  }

  private takeHeaders(stream: Stream | undefined, block: Buffer): void {
    this.blocks.read(block, (name, value) => {
      if (stream === undefined) return;
      if (name === ':status' && !value.startsWith('1')) stream.status = value;
      if (name === 'grpc-status') stream.grpcStatus = value;
    });
  }

  private settle(id: number, stream: Stream, fate: RequestOutcome['fate']): void {
    this.streams.delete(id);
    stream.settle({ fate, answer: this.answerOf(stream) });
  }

  private takeSettings(payload: Buffer): void {
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      if (payload.readUInt16BE(at) !== setting.window) continue;
      const value = payload.readUInt32BE(at + 2);
      for (const one of this.streams.values()) one.window += value - this.streamWindow;
      this.streamWindow = value;
    }
    this.ready = true;
    this.socket.write(frame(frameType.settings, flag.ack, 0));
  }

  /** Streams beyond the last were not looked at. */
  private takeGoaway(last: number): void {
    this.over = true;
    for (const [id, stream] of this.streams) if (id > last) this.settle(id, stream, 'not taken');
  }
}
