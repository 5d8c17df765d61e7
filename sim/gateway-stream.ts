/** One stream of a client on a gateway: the real rules (gateway/api/stream-call.ts) between two simulated pipes. */
import { openStreamCall, type StreamCall } from '../gateway/api/stream-call.js';
import type { Answer } from '../gateway/api/stream-outbox.js';
import type { BatchMessage } from '../gateway/api/view.js';
import type { CommitWatch } from '../gateway/ingest/committed.js';
import type { Ingest } from '../gateway/ingest/ingest.js';
import type { Connection } from '../gateway/listener/connection.js';
import type { Pipe, Receiver } from './network.js';
import type { Process } from './process.js';
import type { World } from './world.js';

/** What a client sends on its stream. */
export type Upward = BatchMessage;
/** What it hears: limits first, then answers. */
export type Downward = { readonly case: 'limits' } | Answer;

export const tenant = 'acme';

export interface StreamOptions {
  readonly world: World;
  readonly process: Process;
  readonly ingest: Ingest;
  /** Tells what is committed. */
  readonly commits: CommitWatch;
  readonly maxBytesInFlight: number;
  readonly connection: Connection;
  readonly onClosed: () => void;
}

const nothing = (): void => undefined;

/** The call, which sends its answers in turns of the process, and ends once. */
function openCall(
  options: StreamOptions,
  toClient: Pipe<Downward>,
): { readonly call: StreamCall; close(): void; readonly ended: boolean } {
  const { process, ingest, connection } = options;
  const openedAt = process.now();
  let flushing = false;
  let ended = false;
  const call = openStreamCall({
    call: {
      caller: { tenant } as never,
      facts: { traceparent: undefined, client: undefined, userAgent: undefined, clientAddress: undefined },
      openedAt,
      resent: false,
      deadlineAt: undefined,
      name: '',
    },
    connection,
    onRevoked: () => nothing,
    maxBytesInFlight: options.maxBytesInFlight,
    maxUncommitted: ingest.limits.maxStreamUncommitted,
    commits: options.commits,
    onFailed: nothing,
    after: process.after,
    publish: (_, { batch, batchId, attempt, sentAt }) =>
      ingest.publish({ tenant, batch, batchId, attempt, sentAt, openedAt }),
    room: ingest.room,
    wake() {
      if (flushing || ended) return;
      flushing = true;
      process.deliver(0, flush);
    },
    isFull: () => false,
  });
  const close = (): void => {
    if (ended) return;
    ended = true;
    options.onClosed();
    call.close();
  };
  const flush = (): void => {
    flushing = false;
    if (ended) return;
    for (let next = call.next(); next !== undefined; next = call.next()) toClient.send(next);
    if (call.end === undefined) return;
    close();
    toClient.end();
  };
  return {
    call,
    close,
    get ended() {
      return ended;
    },
  };
}

/** Serves a stream: reads one batch after the other, as the call has room. */
export function serveStream(options: StreamOptions, toClient: Pipe<Downward>): Receiver<Upward> {
  const { world, process } = options;
  const open = openCall(options, toClient);
  const { call } = open;
  const waiting: Upward[] = [];
  let busy = false;
  let finished = false;
  const pump = async (): Promise<void> => {
    busy = true;
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      if (!(await call.take(next))) break;
    }
    busy = false;
    if (finished) call.finish();
  };

  toClient.send({ case: 'limits' });
  return {
    onMessage(message) {
      if (open.ended || finished) return;
      world.trace?.(process.name, `reads ${message.batchId} attempt ${message.attempt}`);
      waiting.push(message);
      if (!busy) void pump();
    },
    onEnd(broken) {
      finished = true;
      if (broken) {
        call.abort(new Error('the client is gone'));
        open.close();
      } else if (!busy) call.finish();
    },
  };
}
