/**
 * The thin shell around one PublishStream call over gRPC: hands batches to the transport and turns its answers and errors
 * into the words of delivery.ts. Each stream has a connection of its own, so that "open another" always means another
 * connection, which a load balancer may send elsewhere.
 */
import { create, type DescMethodBiDiStreaming, type MessageShape } from '@bufbuild/protobuf';
import type { Duration } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { RetryInfoSchema } from '../gen/google/rpc/error_details_pb.js';
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

export interface IngestStreamOptions {
  readonly baseUrl: string;
  /** Goes into each request's `authorization` header, and nowhere else. */
  readonly key: string;
  readonly userAgent: string;
  /** What the stream is asked to tell. */
  readonly durability: Durability;
  readonly clock: Clock;
}

/** Larger than any answer: 100 rejections of one batch. */
const readMaxBytes = 1024 * 1024;

const method = { ...IngestService.method.publishStream, input: batchMessageView } as DescMethodBiDiStreaming<
  typeof batchMessageView,
  typeof PublishStreamResponseSchema
>;

/** Opens a stream. What it tells comes later, never during the call. */
export function openIngestStream(options: IngestStreamOptions, events: LinkEvents): Link {
  const { clock } = options;
  const outbox: Outgoing[] = [];
  const stop = new AbortController();
  let wake: (() => void) | undefined;
  let finished = false;
  let aborted = false;

  const session = new Http2SessionManager(
    options.baseUrl,
    // Finds dead peers and keeps idle streams alive through proxies.
    { pingIntervalMs: 20_000, pingTimeoutMs: 10_000 },
  );
  const transport = createGrpcTransport({
    baseUrl: options.baseUrl,
    sessionManager: session,
    acceptCompression: [],
    readMaxBytes,
  });

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
      if (finished || aborted) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }

  const run = async (): Promise<SluiceClientError | undefined> => {
    try {
      const headers = new Headers({ authorization: `Bearer ${options.key}`, 'user-agent': options.userAgent });
      const answer = await transport.stream(method, stop.signal, undefined, headers, requests());
      for await (const message of answer.message) {
        if (!aborted) tell(message, events);
      }
      return undefined;
    } catch (error) {
      return toClientError(error);
    }
  };

  let cancelCut: (() => void) | undefined;
  const cut = (): void => {
    aborted = true;
    wake?.();
    stop.abort(new ConnectError('the client ended the stream', Code.Canceled));
    session.abort();
  };

  // Not during this call: the caller has no Link yet.
  queueMicrotask(() => {
    void run().then((error) => {
      cancelCut?.();
      session.abort();
      if (!aborted) events.onEnd(error);
    });
  });

  return {
    send(batch) {
      outbox.push({ bytes: batch.bytes, batchId: batch.batchId, attempt: batch.attempt });
      wake?.();
    },
    finish(withinMs) {
      if (finished) return;
      finished = true;
      wake?.();
      cancelCut = clock.after(withinMs, () => {
        if (aborted) return;
        cut();
        events.onEnd(new SluiceClientError('deadline_exceeded', 'The gateway did not end a finished stream.'));
      });
    },
    abort() {
      cancelCut?.();
      cut();
    },
  };
}

const milliseconds = (duration: Duration): number =>
  Math.max(0, Number(duration.seconds) * 1_000 + duration.nanos / 1_000_000);

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

function toClientError(error: unknown): SluiceClientError {
  const rpc = ConnectError.from(error);
  const [retry] = rpc.findDetails(RetryInfoSchema);
  return new SluiceClientError(codeName(rpc.code), rpc.rawMessage, {
    ...(retry?.retryDelay === undefined ? {} : { retryAfterMs: milliseconds(retry.retryDelay) }),
    cause: rpc.cause ?? rpc,
  });
}
