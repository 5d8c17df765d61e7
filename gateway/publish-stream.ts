/**
 * One PublishStream call: batches in, answers out as each is settled, in any order.
 *
 *   P1  Held bytes are bounded per stream. A batch counts from the moment it is read until its answer is handed to the
 *       transport, so a client that reads no answers is no longer read from. Past the bound, and while the gateway as a
 *       whole has no room, nothing is read: flow control does the rest.
 *   P2  A failed batch is an answer. The stream ends for four reasons: the client is done, the connection ends, the key
 *       is revoked or the deadline has passed, or the client's bytes are no message. But for a revoked key and a passed
 *       deadline, everything that was read is answered first.
 *   P3  Nothing is read before the caller is known (see routes.ts).
 */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { ConnectError } from '@connectrpc/connect';
import {
  type LimitsSchema,
  type PublishStreamResponse,
  PublishStreamResponseSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import { SluiceError } from '../lib/errors.js';
import type { Connection } from './connection.js';
import type { Ingest } from './ingest.js';
import type { BatchCall, PublishBatch } from './publish-batch.js';
import { classify, duration, toBatchFailure, toConnectError } from './rpc-errors.js';
import type { BatchMessage } from './view.js';

export interface PublishStreamOptions {
  readonly requests: AsyncIterable<BatchMessage>;
  readonly call: BatchCall;
  readonly connection: Connection;
  /** Aborts when the client is gone or the deadline has passed. */
  readonly signal: AbortSignal;
  /** Calls back when the caller's key stops being valid. Returns the un-subscriber. */
  readonly onRevoked: (listener: () => void) => () => void;
  readonly limits: MessageInitShape<typeof LimitsSchema>;
  readonly maxBytesInFlight: number;
  readonly publish: PublishBatch;
  readonly room: Ingest['room'];
}

type Answer = PublishStreamResponse['message'];

/** Most batches of one stream without an answer: bounds what small batches cost beyond their bytes. */
const maxOpen = 1024;
/** What an answer may weigh per rejection, roughly. */
const rejectionBytes = 200;

export async function* publishStream(options: PublishStreamOptions): AsyncGenerator<PublishStreamResponse> {
  const { call, connection, signal, publish } = options;
  const outbox: { answer: Answer; charge: number; open: number }[] = [];
  const stop = new AbortController();
  let held = 0;
  let open = 0;
  let reading = true;
  /** Ends the stream at once. */
  let cut: ConnectError | undefined;
  /** Ends the stream when all is answered. */
  let failure: ConnectError | undefined;
  let wakeWriter: (() => void) | undefined;
  let wakeReader: (() => void) | undefined;

  const tell = (answer: Answer, charge = 0, opened = 0): void => {
    outbox.push({ answer, charge, open: opened });
    wakeWriter?.();
  };
  const cutWith = (error: ConnectError): void => {
    cut ??= error;
    stopReading();
    wakeWriter?.();
  };
  const stopReading = (): void => {
    reading = false;
    stop.abort(new Error('stream is ending'));
    wakeReader?.();
    wakeWriter?.();
  };

  const start = (message: BatchMessage): void => {
    const bytes = message.batch.length;
    held += bytes;
    open++;
    publish(call, message).then(
      (result) => {
        const more = result.rejections.length * rejectionBytes;
        held += more;
        tell({ case: 'accepted', value: result }, bytes + more, 1);
      },
      (reason: unknown) => {
        const error = reason instanceof SluiceError ? reason : new SluiceError('internal', 'The gateway failed.');
        // An id that is no id may be as long as a request.
        const value = create(PublishStreamResponseSchema, {
          message: { case: 'failed', value: toBatchFailure(message.batchId.slice(0, 64), error) },
        }).message;
        tell(value, bytes, 1);
      },
    );
  };

  const read = async (): Promise<void> => {
    for await (const message of options.requests) {
      if (!reading) return;
      // A message may carry options alone.
      if (message.hasOptions && message.batch.length === 0 && message.batchId === '') continue;
      const bytes = message.batch.length;
      while (reading && open > 0 && (held + bytes > options.maxBytesInFlight || open >= maxOpen)) {
        await new Promise<void>((resolve) => {
          wakeReader = resolve;
        });
      }
      if (!reading) return;
      // Rejects only when the stream is ending.
      await options.room(call.caller.tenant, bytes, stop.signal);
      if (!reading) return;
      start(message);
    }
  };

  let endTimer: NodeJS.Timeout | undefined;
  const unsubscribe = [
    connection.onEnding(({ reason, graceMs }) => {
      tell(
        create(PublishStreamResponseSchema, {
          message: { case: 'draining', value: { reason, grace: duration(graceMs / 2) } },
        }).message,
      );
      // The other half is for what is still to be answered.
      endTimer = setTimeout(stopReading, graceMs / 2);
    }),
    options.onRevoked(() => cutWith(toConnectError(new SluiceError('key_unknown', 'The key has been revoked.')))),
  ];
  const onAbort = (): void => cutWith(classify(signal.reason).rpc);
  signal.addEventListener('abort', onAbort, { once: true });

  try {
    yield create(PublishStreamResponseSchema, { message: { case: 'limits', value: options.limits } });
    if (signal.aborted) onAbort();
    void read()
      .catch((reason: unknown) => {
        if (reading) failure = classify(reason).rpc;
      })
      .finally(() => {
        reading = false;
        wakeWriter?.();
      });
    for (;;) {
      for (let next = outbox.shift(); next !== undefined && cut === undefined; next = outbox.shift()) {
        held -= next.charge;
        open -= next.open;
        wakeReader?.();
        yield { $typeName: 'sluice.ingest.v1.PublishStreamResponse', message: next.answer };
      }
      if (cut !== undefined) throw cut;
      if (!reading && open === 0) {
        if (failure !== undefined) throw failure;
        return;
      }
      if (outbox.length > 0) continue;
      await new Promise<void>((resolve) => {
        wakeWriter = resolve;
      });
    }
  } finally {
    stopReading();
    clearTimeout(endTimer);
    for (const leave of unsubscribe) leave();
    signal.removeEventListener('abort', onAbort);
  }
}
