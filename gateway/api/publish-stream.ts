/**
 * PublishStream as the RPC library drives it: a generator around the call of stream-call.ts.
 */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  type LimitsSchema,
  type PublishStreamResponse,
  PublishStreamResponseSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { UnfinishedBytes } from '../held/unfinished.js';
import { openStreamCall, type StreamCallOptions } from './stream-call.js';
import { toMessage } from './stream-outbox.js';
import type { BatchMessage } from './view.js';

export interface PublishStreamOptions extends Omit<StreamCallOptions, 'wake' | 'isFull'> {
  readonly requests: AsyncIterable<BatchMessage>;
  /** Aborts when the client is gone or the deadline has passed. */
  readonly signal: AbortSignal;
  readonly limits: MessageInitShape<typeof LimitsSchema>;
  /** Counts answers that the client does not read. */
  readonly unfinished: UnfinishedBytes;
}

/** The call as the RPC library wants it. */
export async function* publishStream(options: PublishStreamOptions): AsyncGenerator<PublishStreamResponse> {
  const { signal } = options;
  /** Undefined: an answer is on its way to the transport. */
  let wakeWriter: (() => void) | undefined;
  const stream = openStreamCall({
    ...options,
    wake: () => {
      if (wakeWriter === undefined) unread.hold(stream.unread, 0);
      else wakeWriter();
    },
    isFull: () => wakeWriter === undefined,
  });
  const unread = options.unfinished.open(options.call.caller.tenant, {
    pause() {},
    resume() {},
    refuse: (reason) => stream.abort(reason),
  });
  unread.wait();
  const onAbort = (): void => stream.abort(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });

  const read = async (): Promise<void> => {
    for await (const message of options.requests) {
      if (!(await stream.take(message))) return;
    }
  };

  try {
    yield create(PublishStreamResponseSchema, { message: { case: 'limits', value: options.limits } });
    if (signal.aborted) onAbort();
    read().then(
      () => stream.finish(),
      (thrown: unknown) => stream.finish({ thrown }),
    );
    for (;;) {
      wakeWriter = undefined;
      for (let next = stream.next(); next !== undefined; next = stream.next()) yield toMessage(next);
      unread.hold(0, 0);
      const { end } = stream;
      if (end === 'ok') return;
      if (end !== undefined) throw end;
      await new Promise<void>((resolve) => {
        wakeWriter = resolve;
      });
    }
  } finally {
    stream.close();
    unread.close();
    signal.removeEventListener('abort', onAbort);
  }
}
