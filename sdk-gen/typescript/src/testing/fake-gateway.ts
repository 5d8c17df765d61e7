/** The other end of a client's streams, without a network: the test says what it answers, and when. */
import { splitBatch } from '../batcher.js';
import type { Acceptance, BatchFault, Link, LinkEvents, LinkLimits, Outgoing } from '../delivery.js';
import { SluiceClientError } from '../errors.js';

export interface FakeStream {
  /** In the order sent. */
  readonly sent: Outgoing[];
  readonly finished: boolean;
  readonly aborted: boolean;
  limits(limits?: Partial<LinkLimits>): void;
  /** With durability `committed`, at a position; its shard is 0 when not given. */
  accept(batch: Outgoing | undefined, sequence?: number, shard?: number): void;
  /** Of no valid event. */
  acceptNothing(batch: Outgoing | undefined): void;
  /** An answer that speaks of other events than those of the batch. */
  miscount(batch: Outgoing | undefined, accepted: number, rejected: number): void;
  commit(sequence: number, shard?: number): void;
  fail(batch: Outgoing | undefined, fault: Partial<BatchFault>): void;
  drain(): void;
  /** Ends the stream: in order, or with an error that is not the gateway's own. */
  end(code?: SluiceClientError['code'], retryAfterMs?: number): void;
  /** Ends the stream as a gateway refuses one: with the name of its reason. */
  refuse(code: SluiceClientError['code']): void;
}

export interface FakeGateway {
  readonly streams: FakeStream[];
  /** Every send on every stream, in order. */
  readonly sends: Outgoing[];
  /** The latest stream. */
  readonly last: FakeStream;
  open(events: LinkEvents): Link;
}

const eventsOf = (batch: Outgoing | undefined): number =>
  batch === undefined ? 0 : splitBatch({ bytes: batch.bytes, events: 0 }, Number.POSITIVE_INFINITY, 1).length;

export function createFakeGateway(): FakeGateway {
  const streams: FakeStream[] = [];
  const sends: Outgoing[] = [];
  return {
    streams,
    sends,
    get last() {
      const stream = streams.at(-1);
      if (stream === undefined) throw new Error('no stream was opened');
      return stream;
    },
    open(events) {
      const sent: Outgoing[] = [];
      const state = { finished: false, aborted: false };
      streams.push({
        sent,
        get finished() {
          return state.finished;
        },
        get aborted() {
          return state.aborted;
        },
        limits: (limits = {}) =>
          events.onLimits({
            maxBatchBytes: 1 << 20,
            maxBatchEvents: 10_000,
            maxBytesInFlight: 8 << 20,
            maxUncommitted: 100,
            ...limits,
          }),
        accept: (batch, sequence = 1, shard = 0) =>
          events.onAccepted(batch?.batchId ?? '', {
            accepted: eventsOf(batch),
            rejected: 0,
            rejections: [],
            // As it comes off the wire: with the name of the log's stream.
            position: { stream: `EV_${shard}`, shard, sequence: BigInt(sequence) } as Acceptance['position'],
          }),
        acceptNothing: (batch) =>
          events.onAccepted(batch?.batchId ?? '', {
            accepted: 0,
            rejected: eventsOf(batch),
            rejections: [],
            position: undefined,
          }),
        miscount: (batch, accepted, rejected) =>
          events.onAccepted(batch?.batchId ?? '', { accepted, rejected, rejections: [], position: undefined }),
        commit: (sequence, shard = 0) => events.onCommitted(shard, BigInt(sequence)),
        fail: (batch, fault) =>
          events.onFailed(batch?.batchId ?? '', {
            code: 'unavailable',
            message: 'no',
            retryAfterMs: undefined,
            ...fault,
          }),
        drain: () => events.onDraining(),
        refuse: (code) => events.onEnd(new SluiceClientError(code, 'refused', { reason: 'as_documented' })),
        end: (code, retryAfterMs) =>
          events.onEnd(
            code === undefined
              ? undefined
              : new SluiceClientError(code, 'ended', retryAfterMs === undefined ? {} : { retryAfterMs }),
          ),
      });
      return {
        // The core goes on counting in its own object: what was sent is what it was then.
        send: ({ batchId, bytes, attempt }) => {
          sent.push({ batchId, bytes, attempt });
          sends.push({ batchId, bytes, attempt });
        },
        finish: () => {
          state.finished = true;
        },
        abort: () => {
          state.aborted = true;
        },
      };
    },
  };
}
