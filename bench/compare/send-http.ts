/**
 * Sends JSON batches over HTTP/1.1 keep-alive on bare sockets, one request at a time on each: what a pool of a good client
 * does, without the cost of one. A request is one write of prepared bytes; an answer is read by its content-length.
 */
import { connect, type Socket } from 'node:net';
import type { Sender, SenderEvents, Slot } from '../sender.js';

export interface HttpTarget {
  /** `http://127.0.0.1:8080` */
  readonly url: string;
  readonly connections: number;
}

interface Lane {
  socket: Socket | undefined;
  /** What the request in flight is for. */
  slot: number;
  number: number;
  busy: boolean;
  rest: Buffer;
}

/** No connection for this long ends the run. */
const patienceMs = 60_000;
const maxAnswer = 1024 * 1024;
const nothing = Buffer.alloc(0);

export function sendOverHttp(target: HttpTarget, events: SenderEvents): Sender {
  const { hostname, port } = new URL(target.url);
  const idle: Lane[] = [];
  const sockets = new Set<Socket>();
  let closed = false;
  let lastGood = performance.now();

  const open = (lane: Lane): void => {
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    sockets.add(socket);
    lane.rest = nothing;
    socket.once('connect', () => {
      lastGood = performance.now();
      lane.socket = socket;
      idle.push(lane);
      events.writable();
    });
    socket.on('data', (chunk) => {
      try {
        lane.rest = lane.rest.length === 0 ? chunk : Buffer.concat([lane.rest, chunk]);
        const answer = readHttpAnswer(lane.rest);
        if (answer === undefined) return;
        lane.rest = nothing;
        settle(lane, answer);
      } catch (error) {
        events.failed(error instanceof Error ? error : new Error(String(error)));
      }
    });
    socket.on('error', () => undefined); // 'close' follows
    socket.once('close', () => {
      sockets.delete(socket);
      lane.socket = undefined;
      const at = idle.indexOf(lane);
      if (at >= 0) idle.splice(at, 1);
      const { slot, number, busy } = lane;
      lane.busy = false;
      if (busy) events.outcome(slot, number, { kind: 'retry', afterMs: 50, reason: 'connection closed' });
      if (closed) return;
      if (performance.now() - lastGood > patienceMs) events.failed(new Error(`no connection to ${target.url}`));
      else setTimeout(open, 100, lane);
    });
  };

  const settle = (lane: Lane, { status, body }: HttpAnswer): void => {
    if (!lane.busy) throw new Error('an answer without a waiting send');
    const { slot, number } = lane;
    lane.busy = false;
    idle.push(lane);
    if (status === 202) {
      const { accepted, rejected } = JSON.parse(body) as { accepted: number; rejected: number };
      events.outcome(slot, number, { kind: 'accepted', accepted, rejected });
    } else if (status === 429 || status === 503) {
      events.outcome(slot, number, { kind: 'retry', afterMs: 100, reason: body.slice(0, 200) });
    } else {
      events.outcome(slot, number, { kind: 'refused', reason: `HTTP ${status} ${body.slice(0, 200)}` });
    }
  };

  for (let i = 0; i < target.connections; i++) {
    open({ socket: undefined, slot: 0, number: 0, busy: false, rest: nothing });
  }
  return {
    ready: () => idle.length > 0,
    send(slot: Slot): boolean {
      // First come, first served: the connection that has been idle for the longest is the next.
      const lane = idle.shift();
      if (lane?.socket === undefined) return false;
      lane.slot = slot.index;
      lane.number = slot.number;
      lane.busy = true;
      lane.socket.write(slot.message.bytes);
      return true;
    },
    async close() {
      closed = true;
      for (const socket of sockets) socket.destroy();
    },
  };
}

export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
}

/** A whole answer with a content-length; undefined while some of it is missing. @throws Error on any other bytes */
export function readHttpAnswer(bytes: Buffer): HttpAnswer | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  if (end < 0) {
    if (bytes.length > 16_384) throw new Error('an answer without an end of its head');
    return undefined;
  }
  const head = bytes.toString('latin1', 0, end);
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]);
  const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1]);
  if (!(status >= 100) || !(length <= maxAnswer)) throw new Error(`not an answer of the API: ${head.slice(0, 200)}`);
  const from = end + 4;
  if (bytes.length < from + length) return undefined;
  if (bytes.length > from + length) throw new Error('more than one answer to one request');
  return { status, body: bytes.toString('utf8', from, from + length) };
}
