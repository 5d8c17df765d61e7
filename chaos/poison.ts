/**
 * Messages that no client should have written: put into the log past the gateways. The worker has to take out what cannot be stored, put
 * it into the dead letters with its bytes, and store what lies beside it (LOAD-6).
 */
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { shardOf } from '../lib/contract/shard.js';
import { deadLetterOf } from '../lib/dead-letters.js';
import { batchSubject, deadStream } from '../lib/subjects.js';
import { integer, type Random } from '../lib/testing/batches.js';
import { makeEvent } from './events.js';
import type { Journal } from './journal.js';

/** Of the good batches beside the bad ones: no client has this number. */
export const neighbourSource = 4_000_000_000;

export interface Poisoner {
  /** One bad message into a shard. Resolves also when the log did not take it. */
  put(shard: number): Promise<void>;
  /** Bad messages that the log has taken. */
  readonly taken: number;
  /** Those of them that are not among the dead letters, a line each. */
  missing(): Promise<string[]>;
}

export interface PoisonerOptions {
  readonly nc: NatsConnection;
  readonly tenant: string;
  readonly shards: number;
  readonly journal: Journal;
  readonly random: Random;
}

const publishMs = 2_000;
/** Bad messages of which only one batch is refused, and that by ClickHouse: each costs the worker many trials of the block. */
const refusedShare = 0.2;

export function createPoisoner({ nc, tenant, shards, journal, random }: PoisonerOptions): Poisoner {
  const js = jetstream(nc);
  const taken: { shard: number; sequence: number }[] = [];
  let batches = 0;
  let n = 0;

  const idIn = (shard: number): string => {
    for (;;) {
      const id = `poison-${process.pid}-${batches++}`;
      if (shardOf(tenant, id, shards) === shard) return id;
    }
  };
  const stored = (batchId: string, events: Uint8Array): Uint8Array => {
    const head = create(StoredBatchSchema, {
      tenant,
      batchId,
      attempt: 1,
      receivedAt: { seconds: BigInt(Math.floor(Date.now() / 1_000)), nanos: 0 },
      eventCount: 1,
      contract: 'poison',
    });
    // Metadata first, then the events, as a gateway writes it.
    return sizeDelimited(Buffer.concat([toBinary(StoredBatchSchema, head), Buffer.of(0x0a), sizeDelimited(events)]));
  };
  const encoded = (type: number | undefined, number: number): Uint8Array => {
    const { occurredAt, ...event } = makeEvent(neighbourSource, number);
    const time = occurredAt as { seconds: bigint; nanos: number };
    const init = { ...event, occurredAt: time } as MessageInitShape<typeof EventSchema>;
    return toBinary(
      EventSchema,
      create(EventSchema, type === undefined ? init : { ...init, eventId: `poison-${number}`, type }),
    );
  };

  return {
    async put(shard) {
      let payload: Uint8Array;
      let good: string | undefined;
      if (random() >= refusedShare) {
        payload = Uint8Array.from({ length: integer(random, 1, 200) }, () => integer(random, 0, 255));
        // The length of more than there is: no message of this size can be read as batches.
        payload[0] = 0xff;
      } else {
        // No event is of the type 99; the batch before it is like any other.
        n++;
        good = idIn(shard);
        journal.sent({ batchId: good, first: n, count: 1, attempt: 1 });
        payload = Buffer.concat([stored(good, encoded(undefined, n)), stored(idIn(shard), encoded(99, n))]);
      }
      try {
        const { seq } = await js.publish(batchSubject(shard, tenant), payload, { timeout: publishMs });
        taken.push({ shard, sequence: seq });
        if (good !== undefined) journal.accepted(good, { shard, sequence: BigInt(seq) });
      } catch {
        // The log is away, or its answer is lost: it may be there or not.
      }
    },
    get taken() {
      return taken.length;
    },
    async missing() {
      if (taken.length === 0) return [];
      const jsm = await jetstreamManager(nc, { checkAPI: false });
      const letters = new Set<string>();
      const { state } = await jsm.streams.info(deadStream);
      for (let seq = state.first_seq; seq <= state.last_seq; seq++) {
        const message = await jsm.streams.getMessage(deadStream, { seq });
        const letter = message === null ? undefined : deadLetterOf({ headers: message.header, data: message.data });
        if (letter !== undefined) letters.add(`${letter.shard}.${letter.sequence}`);
      }
      return taken
        .filter(({ shard, sequence }) => !letters.has(`${shard}.${sequence}`))
        .map(
          ({ shard, sequence }) =>
            `a bad message, sequence ${sequence} of shard ${shard}, is not among the dead letters`,
        );
    },
  };
}

/** The bytes behind their length, a varint. */
const sizeDelimited = (bytes: Uint8Array): Uint8Array => {
  const size: number[] = [];
  for (let rest = bytes.length; ; rest >>>= 7) {
    size.push(rest < 128 ? rest : (rest & 127) | 128);
    if (rest < 128) break;
  }
  return Buffer.concat([Uint8Array.from(size), bytes]);
};
