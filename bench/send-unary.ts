/**
 * Sends batches as unary calls, gRPC or Connect, from many independent clients with one call in flight each: client n is
 * slot n of the generator, on connection n modulo the number of connections.
 *
 * An answer is "accepted" only when its status and its message say so, as the method reads it (unary-methods.ts). A batch with
 * another answer is sent again. A status that no retry mends ends the run; so does it when nothing is accepted for long.
 */
import { type CallProtocol, callHeaders, keepLinked } from './h2-link.js';
import type { BatchSlot, Sender, SenderEvents } from './sender.js';
import { callUnary, type UnaryAnswer } from './unary-call.js';
import type { UnaryMethod } from './unary-methods.js';

export interface UnaryTarget {
  /** `http://127.0.0.1:7070` */
  readonly url: string;
  readonly key: string;
  readonly protocol: CallProtocol;
  readonly connections: number;
}

const patienceMs = 60_000;
const retryMs = { soon: 100, unseen: 5, final: 100 } as const;

export function sendUnary(target: UnaryTarget, method: UnaryMethod, events: SenderEvents): Sender {
  const { protocol } = target;
  const headers = callHeaders(method.path, target.key, protocol);
  let lastGood = performance.now();
  const links = Array.from({ length: target.connections }, () =>
    keepLinked(target.url, { connected: events.writable, failed: events.failed }),
  );

  const over = (slot: number, number: number, batch: number, answer: UnaryAnswer): void => {
    const accepted =
      answer.kind === 'message' ? method.accepted(answer.message, { slot, number, events: batch }) : undefined;
    if (accepted !== undefined) {
      lastGood = performance.now();
      events.outcome(slot, number, { kind: 'accepted', ...accepted });
      return;
    }
    const { reason, retry } =
      answer.kind === 'failed'
        ? answer
        : { reason: 'the answer does not say that this batch was taken', retry: 'soon' as const };
    if (retry === 'final') events.failed(new Error(`${method.path} was refused: ${reason}`));
    else if (performance.now() - lastGood > patienceMs) {
      events.failed(new Error(`nothing was accepted for ${patienceMs / 1000} s; last: ${reason}`));
    }
    events.outcome(slot, number, { kind: 'retry', afterMs: retryMs[retry], reason });
  };

  return {
    // All or none: a connection that is made again holds the others up for a moment, which the latencies then show.
    ready: () => links.every(({ session }) => session !== undefined),
    send({ index, number, message }: BatchSlot): boolean {
      const session = links[index % links.length]?.session;
      if (session === undefined) return false;
      callUnary(session, protocol, headers, message.bytes, (answer) => over(index, number, message.events, answer));
      return true;
    },
    close: async () => {
      await Promise.all(links.map((link) => link.close()));
    },
  };
}
