/**
 * Sends batches as unary calls, gRPC or Connect, from many independent clients with one call in flight each: client n is
 * slot n of the generator, on connection n modulo the number of connections. Over plain sockets (h2-frames.ts), so that a
 * call costs this process little.
 *
 * An answer is "accepted" only when its message names the batch and how many events were taken. Of any other, Connect's body
 * tells why; gRPC's reason is in trailers, which are not read here: such a batch is sent again, and a run in which nothing is
 * accepted for long ends.
 */
import { connect, type Socket } from 'node:net';
import { readAnswer } from './grpc-answers.js';
import { FrameCutter, flag, frame, frameHead, frameType, preface, putHead, requestHeaders } from './h2-frames.js';
import type { Sender, SenderEvents, Slot } from './sender.js';

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
  readonly calls: Map<number, Call>;
  /** Frames to write in one go at the end of this turn. */
  queue: Buffer[];
  failures: number;
}

interface Call {
  readonly slot: number;
  readonly number: number;
  body: Buffer | undefined;
}

const patienceMs = 60_000;
const longestBackoffMs = 2_000;
/** Stream numbers end at 2^31; a connection is left long before. */
const lastStream = 2 ** 30;
const fullWindow = 2 ** 31 - 1;

export function sendUnary(target: UnaryTarget, events: SenderEvents): Sender {
  const { hostname, port, host } = new URL(target.url);
  const headers = requestHeaders([
    [':method', 'POST'],
    [':scheme', 'http'],
    [':authority', host],
    [':path', '/sluice.ingest.v1.IngestService/Publish'],
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
    Object.assign(link, { largestFrame: 16_384, received: 0, queue: [] });
    let lost = false;
    const again = (reason: string): void => {
      if (lost) return;
      lost = true;
      link.open = false;
      link.socket = undefined;
      socket.destroy();
      const calls = [...link.calls.values()];
      link.calls.clear();
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
          if (payload.readUInt16BE(at) === 4) link.streamWindow = value;
          if (payload.readUInt16BE(at) === 5) link.largestFrame = value;
          if (payload.readUInt16BE(at) === 1 && value < 4096) {
            throw new Error('the server wants a smaller table of headers than this client keeps');
          }
        }
        put(link, frame(frameType.settings, flag.ack, 0));
        link.open = true;
        events.writable();
        return;
      case frameType.ping:
        if ((flags & flag.ack) === 0) put(link, frame(frameType.ping, flag.ack, 0, payload));
        return;
      case frameType.windowUpdate:
        // A call is sent whole within the first window of its stream: only the connection's matters.
        if (stream === 0) {
          link.window += payload.readUInt32BE(0);
          events.writable();
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
      default:
        break;
    }
    if ((type === frameType.data || type === frameType.headers) && (flags & flag.endStream) !== 0) {
      finish(link, stream, undefined);
    }
  };

  const finish = (link: Link, stream: number, problem: string | undefined): void => {
    const call = link.calls.get(stream);
    if (call === undefined) return;
    link.calls.delete(stream);
    const accepted = problem === undefined ? acceptedOf(call, target.protocol) : undefined;
    if (accepted === undefined) {
      const reason = problem ?? reasonOf(call, target.protocol);
      if (performance.now() - lastGood > patienceMs) {
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
      ...{ largestFrame: 0, received: 0, calls: new Map(), queue: [], failures: 0 },
    };
    links.push(link);
    open(link);
  }

  return {
    // All or none: a connection that is made anew holds the others up for a moment, which the latencies then show.
    ready: () => links.every((link) => link.open && !link.leaving),
    send(slot: Slot): boolean {
      const link = links[slot.index % links.length]!;
      const { bytes } = slot.message;
      if (!link.open || link.leaving) return false;
      const body = bytes.length;
      if (body > link.window || body > link.streamWindow) {
        if (body > link.streamWindow)
          events.failed(new Error(`a batch of ${body} bytes is more than unary calls take here`));
        return false;
      }
      const stream = link.nextStream;
      link.nextStream += 2;
      if (link.nextStream > lastStream) link.leaving = true;
      const block = stream === 1 ? headers.first : headers.later;
      // The copy lets headers and body go out together; a batch of a unary call is small.
      const frames = Math.ceil(body / link.largestFrame);
      const out = Buffer.allocUnsafe(frameHead + block.length + body + frames * frameHead);
      putHead(out, 0, block.length, frameType.headers, flag.endHeaders, stream);
      block.copy(out, frameHead);
      let at = frameHead + block.length;
      for (let from = 0; from < body; from += link.largestFrame) {
        const length = Math.min(link.largestFrame, body - from);
        putHead(out, at, length, frameType.data, from + length === body ? flag.endStream : 0, stream);
        bytes.copy(out, at + frameHead, from, from + length);
        at += frameHead + length;
      }
      link.window -= body;
      link.calls.set(stream, { slot: slot.index, number: slot.number, body: undefined });
      put(link, out);
      return true;
    },
    async close() {
      closed = true;
      for (const link of links) link.socket?.destroy();
    },
  };
}

/** Undefined unless the answer is a PublishResponse for this very batch. */
function acceptedOf(call: Call, protocol: UnaryProtocol): { accepted: number; rejected: number } | undefined {
  const { body } = call;
  if (body === undefined) return undefined;
  const message = protocol === 'grpc' ? body.subarray(5) : body;
  // An error of Connect is JSON, which starts with a brace; a PublishResponse with the tag of its field 1.
  if (message[0] !== 0x0a || (protocol === 'grpc' && body[0] !== 0)) return undefined;
  const answer = readAnswer(message);
  if (answer.kind !== 'accepted' || answer.name.slot !== call.slot || answer.name.number !== call.number)
    return undefined;
  return { accepted: answer.accepted, rejected: answer.rejected };
}

const reasonOf = ({ body }: Call, protocol: UnaryProtocol): string =>
  protocol === 'connect' && body !== undefined
    ? body.toString('utf8', 0, 300)
    : 'the call ended without a message: its gRPC status is not read here (--protocol connect tells it)';
