/**
 * Reading the dead-letter stream: what the loader set aside because ClickHouse refuses its content (LOAD-6), with the reason
 * and the place that it had in the log.
 */
import { DeliverPolicy, type JetStreamManager, jetstream } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import { deadLetterOf, type DeadLetter as Letter } from '../../lib/dead-letters.js';
import { isStreamMissing } from '../../lib/jetstream-errors.js';
import { streamInfo } from '../../lib/stream-info.js';
import { deadStream } from '../../lib/subjects.js';
import { keyOf } from './frames.js';

/** A batch, or a whole message, that was set aside. */
export interface DeadLetter extends Omit<Letter, 'bytes'> {
  /** In the dead-letter stream. */
  readonly deadSequence: number;
  /** When it was set aside, ms since 1970. */
  readonly timeMs: number;
  readonly data: Uint8Array;
}

export interface DeadScanOptions {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  /** Only those of this shard. */
  readonly shard?: number | undefined;
  /** Only those of this tenant. */
  readonly tenant?: string | undefined;
  /** Begin so many messages before the end of the stream. @default at its beginning */
  readonly newest?: number | undefined;
  /** Stop after so many. */
  readonly max: number;
  readonly onLetter: (letter: DeadLetter) => void;
}

const fetchMessages = 500;
const fetchMs = 2_000;

/** Reads what is there now, oldest first. A copy may come twice. @returns whether that was all */
export async function scanDead(options: DeadScanOptions): Promise<boolean> {
  const { nc, jsm, max, onLetter } = options;
  let start: number;
  try {
    const { state } = await streamInfo(jsm, deadStream);
    if (state.messages === 0) return true;
    start = Math.max(1, state.first_seq, options.newest === undefined ? 1 : state.last_seq - options.newest + 1);
  } catch (error) {
    if (isStreamMissing(error)) return true;
    throw error;
  }
  const consumer = await jetstream(nc).consumers.get(deadStream, {
    filter_subjects: `dead.${options.shard ?? '*'}.${options.tenant ?? '*'}`,
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: start,
  });
  let read = 0;
  try {
    for (;;) {
      let pending: number | undefined;
      for await (const message of await consumer.fetch({ max_messages: fetchMessages, expires: fetchMs })) {
        const letter = deadLetterOf(message);
        if (letter !== undefined) {
          const { bytes, ...facts } = letter;
          const timeMs = Math.floor(message.info.timestampNanos / 1e6);
          onLetter({ ...facts, data: bytes, deadSequence: message.seq, timeMs });
        }
        pending = message.info.pending;
        read++;
        // Not to wait for more, until the request expires.
        if (pending === 0 || read >= max) return pending === 0;
      }
      if (pending === undefined) return true;
    }
  } finally {
    await consumer.delete().catch(() => false);
  }
}

/** How many events were set aside where. */
export interface DeadLedger {
  /** Events of dead letters from messages `lo` to `hi`; undefined when the stream holds too many to be remembered. */
  between(shard: number, generation: string, lo: number, hi: number): number | undefined;
  /** Of one batch. */
  of(shard: number, generation: string, sequence: number, index: number): DeadPlace | undefined;
  /** Most events that were set aside of one copy of this batch; 0 when none was. */
  eventsOf(tenant: string, batchId: string): number;
  /** All, each copy once. */
  readonly letters: number;
}

export interface DeadPlace {
  readonly sequence: number;
  readonly index: number;
  readonly events: number;
  readonly reason: string;
}

/** Letters that are remembered: some 200 bytes each. */
const maxLetters = 200_000;

/** Reads the whole stream into memory, without the bytes of the letters. */
export async function readDeadLedger(options: Omit<DeadScanOptions, 'max' | 'onLetter'>): Promise<DeadLedger> {
  const shards = new Map<string, Map<string, DeadPlace>>();
  const batches = new Map<string, number>();
  let letters = 0;
  const all = await scanDead({
    ...options,
    max: maxLetters,
    onLetter({ shard, generation, sequence, index, reason, events, tenant, batchId }) {
      const key = `${shard} ${generation}`;
      const places = shards.get(key) ?? new Map<string, DeadPlace>();
      shards.set(key, places);
      const place = `${sequence} ${index}`;
      if (places.has(place)) return;
      letters++;
      places.set(place, { sequence, index, events, reason: reason.slice(0, 200) });
      const batch = keyOf(tenant, batchId);
      batches.set(batch, Math.max(events, batches.get(batch) ?? 0));
    },
  });
  const sorted = new Map([...shards].map(([key, places]) => [key, [...places.values()].sort(bySequence)] as const));
  return {
    letters,
    between(shard, generation, lo, hi) {
      if (!all) return undefined;
      const places = sorted.get(`${shard} ${generation}`) ?? [];
      let sum = 0;
      for (let i = firstAt(places, lo); i < places.length && (places[i] as DeadPlace).sequence <= hi; i++) {
        sum += (places[i] as DeadPlace).events;
      }
      return sum;
    },
    eventsOf: (tenant, batchId) => batches.get(keyOf(tenant, batchId)) ?? 0,
    of: (shard, generation, sequence, index) => shards.get(`${shard} ${generation}`)?.get(`${sequence} ${index}`),
  };
}

const bySequence = (a: DeadPlace, b: DeadPlace): number => a.sequence - b.sequence || a.index - b.index;

/** The first place at or above a sequence, by halving. */
function firstAt(places: readonly DeadPlace[], sequence: number): number {
  let [from, to] = [0, places.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((places[middle] as DeadPlace).sequence < sequence) from = middle + 1;
    else to = middle;
  }
  return from;
}
