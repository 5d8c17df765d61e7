/**
 * The thin layer around one PublishStream call over gRPC: it gives batches to the transport, and turns answers and errors into the
 * types of delivery.ts. Each stream has a separate connection, so that another stream always means another connection, which a load
 * balancer may send elsewhere.
 */
import { create, type DescMethodBiDiStreaming, type MessageShape } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import {
  Durability as DurabilityCode,
  IngestService,
  type PublishStreamResponse,
  type PublishStreamResponseSchema,
  RejectionCode,
} from '../gen/sluice/ingest/v1/ingest_pb.js';
import { batchMessageView } from './batch-view.js';
import type { Clock } from './clock.js';
import type { Durability, Link, LinkEvents, Outgoing } from './delivery.js';
import { codeName, SluiceClientError } from './errors.js';
import { openHttp2Connection } from './http2-connection.js';
import type { ClientTls } from './options.js';
import { milliseconds, toClientError } from './stream-end.js';

export interface IngestStreamOptions {
  readonly baseUrl: string;
  /** Goes into each request's `authorization` header, and nowhere else. */
  readonly key: string;
  /** @default Node's authorities, and no certificate */
  readonly tls?: ClientTls | undefined;
  readonly userAgent: string;
  /** What the stream is asked to tell. */
  readonly durability: Durability;
  readonly clock: Clock;
}

/** Larger than any answer: 100 rejections of one batch. */
const readMaxBytes = 1024 * 1024;
/** Finds dead peers and keeps idle streams alive through proxies, ms. */
const pingIntervalMs = 20_000;
const pingTimeoutMs = 10_000;
/** What came before the connection ended is read within this time, ms. */
const lastWordsMs = 100;

const method = { ...IngestService.method.publishStream, input: batchMessageView } as DescMethodBiDiStreaming<
  typeof batchMessageView,
  typeof PublishStreamResponseSchema
>;

/** Opens a stream. What it tells comes later, never during the call. */
export function openIngestStream(options: IngestStreamOptions, events: LinkEvents): Link {
  const { baseUrl, clock, tls } = options;
  const outbox: Outgoing[] = [];
  const stop = new AbortController();
  let wake: (() => void) | undefined;
  let finished = false;
  let ended = false;
  const timers = new Set<() => void>();
  const after = (ms: number, run: () => void): void => {
    timers.add(clock.after(ms, run));
  };

  /** The call itself may never say that it is over, as when a stream is reset without an error before it was answered. */
  const onOver = (): void => after(lastWordsMs, () => endWith(new ConnectError('The stream ended.', Code.Unavailable)));
  const connection = openHttp2Connection({ url: baseUrl, tls, clock, pingIntervalMs, pingTimeoutMs, onOver });
  const transport = createGrpcTransport({ baseUrl, sessionManager: connection, acceptCompression: [], readMaxBytes });

  /** Nothing more is sent or told. */
  const stopAll = (): void => {
    ended = true;
    for (const cancel of timers) cancel();
    wake?.();
    stop.abort(new ConnectError('the client ended the stream', Code.Canceled));
    connection.close();
  };
  const endWith = (thrown: unknown): void => {
    if (ended) return;
    const { fault, answer } = connection;
    stopAll();
    events.onEnd(thrown === undefined ? undefined : toClientError({ thrown, baseUrl, fault, answer }));
  };

  async function* requests(): AsyncGenerator<MessageShape<typeof batchMessageView>> {
    if (options.durability === 'committed') {
      yield create(batchMessageView, { options: { durability: DurabilityCode.COMMITTED } } as never);
    }
    for (;;) {
      for (let next = outbox.shift(); next !== undefined; next = outbox.shift()) {
        const ms = clock.wall();
        yield create(batchMessageView, {
          batch: next.bytes,
          batchId: next.batchId,
          attempt: next.attempt,
          sentAt: { seconds: BigInt(Math.floor(ms / 1_000)), nanos: Math.floor(ms % 1_000) * 1_000_000 },
        } as never);
      }
      if (finished || ended) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }

  const run = async (): Promise<void> => {
    const headers = new Headers({ authorization: `Bearer ${options.key}`, 'user-agent': options.userAgent });
    const answer = await transport.stream(method, stop.signal, undefined, headers, requests());
    for await (const message of answer.message) {
      if (!ended) tell(message, events);
    }
  };

  // Not during this call: the caller has no Link yet.
  queueMicrotask(() => void run().then(() => endWith(undefined), endWith));

  return {
    send(batch) {
      outbox.push({ bytes: batch.bytes, batchId: batch.batchId, attempt: batch.attempt });
      wake?.();
    },
    finish(withinMs) {
      if (finished) return;
      finished = true;
      wake?.();
      after(withinMs, () => {
        if (ended) return;
        stopAll();
        events.onEnd(new SluiceClientError('deadline_exceeded', 'The gateway did not end a finished stream.'));
      });
    },
    abort: stopAll,
  };
}

function tell({ message }: PublishStreamResponse, events: LinkEvents): void {
  switch (message.case) {
    case 'limits':
      events.onLimits({
        // 0 is "not told".
        maxBatchBytes: message.value.maxBatchBytes || 1024 * 1024,
        maxBatchEvents: message.value.maxBatchEvents || 10_000,
        maxBytesInFlight: message.value.maxStreamBytesInFlight || 8 * 1024 * 1024,
        maxUncommitted: message.value.maxStreamUncommitted,
      });
      return;
    case 'accepted': {
      const { batchId, accepted, rejected, rejections, position } = message.value;
      events.onAccepted(batchId, {
        accepted,
        rejected,
        rejections: rejections.map((rejection) => ({
          index: rejection.index,
          field: rejection.field,
          code: RejectionCode[rejection.code] ?? String(rejection.code),
          message: rejection.message,
        })),
        position,
      });
      return;
    }
    case 'failed': {
      const { batchId, code, message: text, retryAfter } = message.value;
      events.onFailed(batchId, {
        code: codeName(code),
        message: text,
        retryAfterMs: retryAfter === undefined ? undefined : milliseconds(retryAfter),
      });
      return;
    }
    case 'draining':
      events.onDraining();
      return;
    case 'committed': {
      const { upTo } = message.value;
      if (upTo !== undefined) events.onCommitted(upTo.shard, upTo.sequence);
      return;
    }
    case undefined:
      // Newer than this client.
      return;
    default:
      message satisfies never;
  }
}
