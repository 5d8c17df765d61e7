/**
 * Sends batches as unary calls, gRPC or Connect, from many independent clients with one call in flight each: client n is
 * slot n of the generator, on connection n modulo the number of connections.
 *
 * An answer is "accepted" only when its message says so, as the method reads it (unary-methods.ts), and with gRPC only when
 * the status after it is 0. Of any other, Connect's body or gRPC's status tells why: such a batch is sent again. gRPC's word
 * that the key or the method is not known ends the run; so does it when nothing is accepted for long.
 */
import { requestHeaders } from '../lib/testing/h2-frames.js';
import { type CallProtocol, callHeaders } from './h2-link.js';
import { type PlainCall, PlainConnection } from './plain-h2.js';
import type { Sender, SenderEvents, Slot } from './sender.js';
import type { Accepted, Sent, UnaryMethod } from './unary-methods.js';

export interface UnaryTarget {
  /** `http://127.0.0.1:7070` */
  readonly url: string;
  readonly key: string;
  readonly protocol: CallProtocol;
  readonly connections: number;
}

type Call = Sent & PlainCall;

const patienceMs = 60_000;
const maxBackoffMs = 2_000;
/** The key is not valid; there is no such method. No retry mends them. */
const hopeless: readonly (string | undefined)[] = ['16', '12'];

export function sendUnary(target: UnaryTarget, method: UnaryMethod, events: SenderEvents): Sender {
  const { protocol } = target;
  const { hostname, port, host } = new URL(target.url);
  const { ':method': post, ...others } = callHeaders(method.path, target.key, protocol);
  const pseudo = { ':method': post!, ':scheme': 'http', ':authority': host };
  const headers = requestHeaders(Object.entries({ ...pseudo, ...others }));
  const connections: PlainConnection<Call>[] = [];
  let failures = 0;
  let closed = false;
  let lastGood = performance.now();

  const failWithout = (reason: string): void => {
    if (performance.now() - lastGood <= patienceMs) return;
    events.failed(new Error(`nothing was accepted for ${patienceMs / 1000} s; last: ${reason}`));
  };
  const over = (call: Call, problem: string | undefined): void => {
    const accepted = problem === undefined ? acceptedOf(call, method, protocol) : undefined;
    if (accepted !== undefined) {
      lastGood = performance.now();
      failures = 0;
      events.outcome(call.slot, call.number, { kind: 'accepted', ...accepted });
      return;
    }
    const reason = problem ?? reasonOf(call, protocol);
    if (hopeless.includes(call.status)) events.failed(new Error(`${method.path} was refused: ${reason}`));
    else failWithout(reason);
    events.outcome(call.slot, call.number, { kind: 'retry', afterMs: 100, reason });
  };
  const open = (i: number): void => {
    if (closed) return;
    connections[i] = new PlainConnection<Call>({ host: hostname, port: Number(port) }, headers, {
      open: events.writable,
      over,
      lost: (reason) => {
        failWithout(reason);
        setTimeout(open, Math.min(maxBackoffMs, 50 * 2 ** failures++) * (0.5 + Math.random() / 2), i);
      },
    });
  };
  for (let i = 0; i < target.connections; i++) open(i);

  return {
    // All or none: a connection that is made again holds the others up for a moment, which the latencies then show.
    ready: () => connections.every((one) => one.ready),
    send({ index, number, message }: Slot): boolean {
      const connection = connections[index % connections.length]!;
      if (!connection.ready) return false;
      const answer = { body: undefined, status: undefined, statusMessage: '' };
      connection.call({ slot: index, number, events: message.events, bytes: message.bytes, ...answer });
      return true;
    },
    async close() {
      closed = true;
      for (const connection of connections) connection.destroy();
    },
  };
}

function acceptedOf(call: Call, method: UnaryMethod, protocol: CallProtocol): Accepted | undefined {
  const { body, status } = call;
  if (body === undefined) return undefined;
  if (protocol === 'connect') return method.accepted(body, call);
  // One message, not compressed, and a status after it that says that it counts.
  const whole = body.length >= 5 && body[0] === 0 && body.readUInt32BE(1) === body.length - 5;
  return whole && status === '0' ? method.accepted(body.subarray(5), call) : undefined;
}

function reasonOf({ body, status, statusMessage }: Call, protocol: CallProtocol): string {
  if (protocol === 'connect') return body?.toString('utf8', 0, 300) ?? 'the call ended without a message';
  if (status === undefined) return 'the call ended without a gRPC status';
  if (status === '0') return 'the answer does not say that this batch was taken';
  return `gRPC status ${status} ${statusMessage.slice(0, 300)}`;
}
