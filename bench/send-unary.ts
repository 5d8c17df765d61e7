/**
 * Sends batches as unary calls, gRPC or Connect, from many independent clients with one call in flight each: client n is
 * slot n of the generator, on connection n modulo the number of connections. Over plain sockets (lib/testing/h2-frames.ts), so that a
 * call costs this process little.
 *
 * An answer is "accepted" only when its message says so, as the method reads it (unary-methods.ts), and with gRPC only when
 * the status after it is 0. Of any other, Connect's body or gRPC's status tells why: such a batch is sent again. gRPC's word
 * that the key or the method is not known ends the run; so does it when nothing is accepted for long.
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
  requestHeaders,
} from '../lib/testing/h2-frames.js';
import { HeaderBlockReader } from './h2-header-blocks.js';
import type { Sender, SenderEvents, Slot } from './sender.js';
import type { Accepted, Sent, UnaryMethod } from './unary-methods.js';

export type UnaryProtocol = 'grpc' | 'connect';

export interface UnaryTarget {
  /** `http://127.0.0.1:7070` */
  readonly url: string;
  readonly key: string;
  readonly protocol: UnaryProtocol;
  readonly connections: number;
}

interface Link {
  socket: Socket | undefined;
  open: boolean;
  /** The server asked for no more on this connection. */
  leaving: boolean;
  nextStream: number;
  /** Bytes that the server takes on the connection, and at the start of each stream. */
  window: number;
  streamWindow: number;
  largestFrame: number;
  /** Bytes received since the server was last told to go on. */
  received: number;
  headerBlocks: HeaderBlockReader;
  readonly calls: Map<number, Call>;
  /** Calls of which not all has been sent for want of room, in their order. */
  readonly unsent: Set<Call>;
  /** Frames to write in one go at the end of this turn. */
  queue: Buffer[];
  failures: number;
}

interface Call extends Sent {
  readonly stream: number;
  /** The slot's: they stay as they are until the outcome is known. */
  readonly bytes: Buffer;
  /** How many of them have left. */
  left: number;
  /** Bytes that the server takes on this stream. */
  window: number;
  body: Buffer | undefined;
  status: string | undefined;
  statusMessage: string;
}

const patienceMs = 60_000;
const longestBackoffMs = 2_000;
/** Stream numbers end at 2^31; a connection is left long before. */
const lastStream = 2 ** 30;
const fullWindow = 2 ** 31 - 1;
/** The key is not valid; there is no such method. No retry mends them. */
const hopeless: readonly (string | undefined)[] = ['16', '12'];

export function sendUnary(target: UnaryTarget, method: UnaryMethod, events: SenderEvents): Sender {
  const { hostname, port, host } = new URL(target.url);
  const headers = requestHeaders([
    [':method', 'POST'],
    [':scheme', 'http'],
    [':authority', host],
    [':path', method.path],
    ['content-type', target.protocol === 'grpc' ? 'application/grpc+proto' : 'application/proto'],
    ['user-agent', 'sluice-bench/0.1.0'],
    ['authorization', `Bearer ${target.key}`],
    target.protocol === 'grpc' ? ['te', 'trailers'] : ['connect-protocol-version', '1'],
  ]);
  const links: Link[] = [];
  let closed = false;
  let lastGood = performance.now();

  const flush = (link: Link): void => {
    const { socket, queue } = link;
    link.queue = [];
    if (socket === undefined || queue.length === 0) return;
    socket.cork();
    for (const bytes of queue) socket.write(bytes);
    socket.uncork();
  };
  const put = (link: Link, bytes: Buffer): void => {
    if (link.queue.length === 0) process.nextTick(flush, link);
    link.queue.push(bytes);
  };

  const open = (link: Link): void => {
    if (closed) return;
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    const cutter = new FrameCutter();
    Object.assign(link, { socket, open: false, leaving: false, nextStream: 1, window: 65_535, streamWindow: 65_535 });
    Object.assign(link, { largestFrame: 16_384, received: 0, headerBlocks: new HeaderBlockReader(), queue: [] });
    let lost = false;
    const again = (reason: string): void => {
      if (lost) return;
      lost = true;
      link.open = false;
      link.socket = undefined;
      socket.destroy();
      const calls = [...link.calls.values()];
      link.calls.clear();
      link.unsent.clear();
      for (const call of calls) events.outcome(call.slot, call.number, { kind: 'retry', afterMs: 50, reason });
      if (closed) return;
      if (performance.now() - lastGood > patienceMs) {
        events.failed(new Error(`nothing was accepted for ${patienceMs / 1000} s; last: ${reason}`));
        return;
      }
      setTimeout(() => open(link), Math.min(longestBackoffMs, 50 * 2 ** link.failures++) * (0.5 + Math.random() / 2));
    };
    socket.on('connect', () => {
      const settings = Buffer.alloc(12);
      settings.writeUInt16BE(2, 0); // no push
      settings.writeUInt16BE(4, 6); // as large a window for each stream as there is
      settings.writeUInt32BE(fullWindow, 8);
      const more = Buffer.alloc(4);
      more.writeUInt32BE(fullWindow - 65_535);
      socket.write(
        Buffer.concat([preface, frame(frameType.settings, 0, 0, settings), frame(frameType.windowUpdate, 0, 0, more)]),
      );
    });
    socket.on('data', (chunk: Buffer) => {
      try {
        cutter.push(chunk, (type, flags, stream, payload) => take(link, type, flags, stream, payload));
      } catch (error) {
        again(error instanceof Error ? error.message : String(error));
      }
      if (link.leaving && link.calls.size === 0) again('the server is leaving');
    });
    socket.on('error', (error) => again(error.message));
    socket.on('close', () => again('connection closed'));
  };

  const take = (link: Link, type: number, flags: number, stream: number, payload: Buffer): void => {
    switch (type) {
      case frameType.data: {
        link.received += payload.length;
        const call = link.calls.get(stream);
        if (call !== undefined) {
          const bytes = (flags & flag.padded) === 0 ? payload : payload.subarray(1, payload.length - payload[0]!);
          call.body = call.body === undefined ? Buffer.from(bytes) : Buffer.concat([call.body, bytes]);
        }
        if (link.received > 2 ** 30) {
          const more = Buffer.alloc(4);
          more.writeUInt32BE(link.received);
          link.received = 0;
          put(link, frame(frameType.windowUpdate, 0, 0, more));
        }
        break;
      }
      case frameType.settings:
        if ((flags & flag.ack) !== 0) return;
        for (let at = 0; at + 6 <= payload.length; at += 6) {
          const value = payload.readUInt32BE(at + 2);
          if (payload.readUInt16BE(at) === 4) {
            // It changes the windows of open streams too, which may fall below 0 (RFC 9113, 6.9.2).
            for (const call of link.calls.values()) call.window += value - link.streamWindow;
            link.streamWindow = value;
          }
          if (payload.readUInt16BE(at) === 5) link.largestFrame = value;
          if (payload.readUInt16BE(at) === 1 && value < 4096) {
            throw new Error('the server wants a smaller table of headers than this client keeps');
          }
        }
        put(link, frame(frameType.settings, flag.ack, 0));
        link.open = true;
        writeOn(link);
        events.writable();
        return;
      case frameType.ping:
        if ((flags & flag.ack) === 0) put(link, frame(frameType.ping, flag.ack, 0, payload));
        return;
      case frameType.windowUpdate:
        if (stream === 0) {
          link.window += payload.readUInt32BE(0);
          writeOn(link);
        } else {
          const call = link.calls.get(stream);
          if (call === undefined) return;
          call.window += payload.readUInt32BE(0);
          if (link.unsent.has(call)) write(link, call);
        }
        return;
      case frameType.goaway: {
        link.leaving = true;
        const last = payload.readUInt32BE(0) & fullWindow;
        for (const [number] of link.calls) if (number > last) finish(link, number, 'the server is leaving');
        return;
      }
      case frameType.reset:
        finish(link, stream, 'the call was reset');
        return;
      case frameType.headers:
        if (target.protocol === 'grpc') readStatus(link, flags, stream, payload);
        break;
      default:
        break;
    }
    if ((type === frameType.data || type === frameType.headers) && (flags & flag.endStream) !== 0) {
      finish(link, stream, undefined);
    }
  };

  /** The frame's block must be read whatever became of the call: later ones build on it. */
  const readStatus = (link: Link, flags: number, stream: number, payload: Buffer): void => {
    if ((flags & flag.endHeaders) === 0) throw new Error("an answer's headers come in more than one frame");
    const padded = (flags & flag.padded) !== 0;
    const from = (padded ? 1 : 0) + ((flags & flag.priority) !== 0 ? 5 : 0);
    const call = link.calls.get(stream);
    link.headerBlocks.read(payload.subarray(from, payload.length - (padded ? payload[0]! : 0)), (name, value) => {
      if (call === undefined) return;
      if (name === 'grpc-status') call.status = value;
      else if (name === 'grpc-message') call.statusMessage = value;
    });
  };

  /** Sends as much of a call as there is room for. @param block its headers, the first time */
  const write = (link: Link, call: Call, block?: Buffer): void => {
    const { bytes, stream } = call;
    const body = Math.max(0, Math.min(bytes.length - call.left, call.window, link.window));
    // The copy lets headers and body go out together.
    const heads = Math.ceil(body / link.largestFrame) * frameHead;
    const out = Buffer.allocUnsafe((block === undefined ? 0 : frameHead + block.length) + heads + body);
    let at = 0;
    if (block !== undefined) {
      putHead(out, 0, block.length, frameType.headers, flag.endHeaders, stream);
      at = frameHead + block.copy(out, frameHead);
    }
    const end = call.left + body;
    while (call.left < end) {
      const length = Math.min(link.largestFrame, end - call.left);
      const last = call.left + length === bytes.length;
      putHead(out, at, length, frameType.data, last ? flag.endStream : 0, stream);
      bytes.copy(out, at + frameHead, call.left, call.left + length);
      at += frameHead + length;
      call.left += length;
    }
    link.window -= body;
    call.window -= body;
    if (end < bytes.length) link.unsent.add(call);
    else link.unsent.delete(call);
    if (out.length > 0) put(link, out);
  };

  const writeOn = (link: Link): void => {
    for (const call of link.unsent) {
      if (link.window <= 0) return;
      write(link, call);
    }
  };

  const finish = (link: Link, stream: number, problem: string | undefined): void => {
    const call = link.calls.get(stream);
    if (call === undefined) return;
    link.calls.delete(stream);
    link.unsent.delete(call);
    const accepted = problem === undefined ? acceptedOf(call, method, target.protocol) : undefined;
    if (accepted === undefined) {
      const reason = problem ?? reasonOf(call, target.protocol);
      if (hopeless.includes(call.status)) {
        events.failed(new Error(`${method.path} was refused: ${reason}`));
      } else if (performance.now() - lastGood > patienceMs) {
        events.failed(new Error(`nothing was accepted for ${patienceMs / 1000} s; last: ${reason}`));
      }
      events.outcome(call.slot, call.number, { kind: 'retry', afterMs: 100, reason });
      return;
    }
    lastGood = performance.now();
    link.failures = 0;
    events.outcome(call.slot, call.number, { kind: 'accepted', ...accepted });
  };

  for (let i = 0; i < target.connections; i++) {
    const link: Link = {
      ...{ socket: undefined, open: false, leaving: false, nextStream: 1, window: 0, streamWindow: 0 },
      ...{ largestFrame: 0, received: 0, headerBlocks: new HeaderBlockReader() },
      ...{ calls: new Map(), unsent: new Set(), queue: [], failures: 0 },
    };
    links.push(link);
    open(link);
  }

  return {
    // All or none: a connection that is made again holds the others up for a moment, which the latencies then show.
    ready: () => links.every((link) => link.open && !link.leaving),
    send(slot: Slot): boolean {
      const link = links[slot.index % links.length]!;
      if (!link.open || link.leaving) return false;
      const stream = link.nextStream;
      link.nextStream += 2;
      if (link.nextStream > lastStream) link.leaving = true;
      const call: Call = {
        ...{ slot: slot.index, number: slot.number, events: slot.message.events, stream, bytes: slot.message.bytes },
        ...{ left: 0, window: link.streamWindow, body: undefined, status: undefined, statusMessage: '' },
      };
      link.calls.set(stream, call);
      // What there is no room for waits here, as in any client: the ack's time counts it.
      write(link, call, stream === 1 ? headers.first : headers.later);
      return true;
    },
    async close() {
      closed = true;
      for (const link of links) link.socket?.destroy();
    },
  };
}

function acceptedOf(call: Call, method: UnaryMethod, protocol: UnaryProtocol): Accepted | undefined {
  const { body, status } = call;
  if (body === undefined) return undefined;
  if (protocol === 'connect') return method.accepted(body, call);
  // One message, not compressed, and a status after it that says that it counts.
  const whole = body.length >= 5 && body[0] === 0 && body.readUInt32BE(1) === body.length - 5;
  return whole && status === '0' ? method.accepted(body.subarray(5), call) : undefined;
}

function reasonOf({ body, status, statusMessage }: Call, protocol: UnaryProtocol): string {
  if (protocol === 'connect') return body?.toString('utf8', 0, 300) ?? 'the call ended without a message';
  if (status === undefined) return 'the call ended without a gRPC status';
  if (status === '0') return 'the answer does not say that this batch was taken';
  return `gRPC status ${status} ${statusMessage.slice(0, 300)}`;
}
