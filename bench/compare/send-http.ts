/**
 * Sends JSON batches over HTTP/1.1 keep-alive, one request at a time on each connection, as a pool of a good client does. At
 * batches of 500 node's client costs the load's process little beside what the peers do with them.
 */
import { Agent, type IncomingMessage, request } from 'node:http';
import type { BatchSlot, Sender, SenderEvents, SendOutcome } from '../sender.js';

export interface HttpTarget {
  /** `http://127.0.0.1:8080` */
  readonly url: string;
  readonly key: string;
  readonly connections: number;
}

/** No answer for this long ends the run. */
const patienceMs = 60_000;

export function sendOverHttp(target: HttpTarget, events: SenderEvents): Sender {
  const { connections, key } = target;
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  const { hostname, port } = new URL(target.url);
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
  const options = { hostname, port, path: '/v1/events/batch', method: 'POST', agent, headers };
  let busy = 0;
  let lastGood = performance.now();

  const settle = (slot: BatchSlot, number: number, outcome: SendOutcome): void => {
    busy--;
    events.outcome(slot.index, number, outcome);
  };
  const lose = (slot: BatchSlot, number: number, reason: string): void => {
    if (performance.now() - lastGood > patienceMs) events.failed(new Error(`no answer from ${target.url}: ${reason}`));
    settle(slot, number, { kind: 'retry', afterMs: 100, reason });
  };
  return {
    ready: () => busy < connections,
    send(slot: BatchSlot): boolean {
      const { number, message } = slot;
      busy++;
      const call = request({ ...options, headers: { ...headers, 'content-length': message.bytes.length } });
      call.on('error', (error) => lose(slot, number, error.message));
      call.on('response', async (answer: IncomingMessage) => {
        try {
          let body = '';
          for await (const chunk of answer.setEncoding('utf8')) body += chunk;
          lastGood = performance.now();
          settle(slot, number, outcomeOf(answer.statusCode ?? 0, body));
        } catch (error) {
          lose(slot, number, String(error));
        }
      });
      call.end(message.bytes);
      return true;
    },
    async close() {
      agent.destroy();
    },
  };
}

function outcomeOf(status: number, body: string): SendOutcome {
  const reason = `HTTP ${status} ${body.slice(0, 200)}`;
  if (status === 429 || status === 503) return { kind: 'retry', afterMs: 100, reason };
  if (status !== 202) return { kind: 'refused', reason };
  const { accepted, rejected } = JSON.parse(body) as { accepted: number; rejected: number };
  return { kind: 'accepted', accepted, rejected };
}
