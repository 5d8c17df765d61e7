/**
 * What can be left out of the protocol. Each of these is a plausible design, and each must be noticed, or the simulator proves
 * nothing. They weaken what surrounds the cores, never the cores.
 */
import type { OpenLogWire } from '../gateway/log/log-wire.js';
import { utcDay } from '../lib/timestamp.js';
import type { StoredCopies } from '../workers/loader/copy-verdicts.js';
import { noEvents } from '../workers/loader/fingerprint.js';
import type { ShardIo } from '../workers/loader/loader.js';
import type { Plan } from './plan.js';
import type { SinkWeakness } from './sink.js';
import type { World } from './world.js';

export interface Weakness {
  /** What is left out, or done instead. */
  readonly what: string;
  readonly sink?: SinkWeakness;
  /** Wraps what a worker's protocol talks to. Called once per worker and shard. */
  readonly worker?: (io: ShardIo, world: World, shard: number) => ShardIo;
  /** Wraps what a worker asks the sink about the copies of batches (LOAD-5). */
  readonly stored?: (stored: StoredCopies) => StoredCopies;
  /** When a worker reads the retried batches from the sink: not after another's block, or never. Else after each recovery. */
  readonly retriedSet?: 'not after another' | 'never';
  /** A connection that breaks during a recovery is not looked into. */
  readonly forgetsDoubt?: boolean;
  /** A gateway's streams believe every watermark, whatever has become of the log. */
  readonly trustsWatermark?: boolean;
  /** What worlds are like that show it soon. */
  readonly worlds?: Partial<Plan>;
  /** Only worlds show it in which the log loses what it acknowledged. */
  readonly breakLog?: boolean;
  /** What the sink refuses is left out, and put nowhere. */
  readonly dropsLetters?: boolean;
  /** A gateway's hedged copies keep their attempt. */
  readonly hedgesUnmarked?: boolean;
  /** Wraps a gateway's line to the log. */
  readonly wire?: (open: OpenLogWire, world: World) => OpenLogWire;
  /** The attempt that a client writes on a send. */
  readonly attempt?: (attempt: number) => number;
}

const encoder = new TextEncoder();

/** Positions that a consumer has acknowledged, by world and shard. They may be lost: acks are not durable (FACT-8). */
const consumerAcks = new WeakMap<World, Map<number, number>>();

function acksOf(world: World): Map<number, number> {
  let acks = consumerAcks.get(world);
  if (acks === undefined) {
    acks = new Map();
    consumerAcks.set(world, acks);
  }
  return acks;
}

export const weaknesses = {
  'no-probe': {
    what: 'the INSERT of a block does not look whether the block is there',
    sink: { noProbe: true },
  },
  'no-query-id': {
    what: 'two INSERTs of one block may run at once',
    sink: { noQueryId: true },
  },
  'token-only': {
    what: 'a deduplication token in place of insert-if-absent, on a table that writes the token before the rows (FACT-7)',
    worlds: { faults: ['restart sink'], faultCount: 8 },
    sink: { tokenOnly: true },
  },
  'trust-in-memory': {
    what: 'the worker believes that what it sent is stored, and does not read back',
    worker: (io) => ({ ...io, readBack: async (_, { lo, hi }) => ({ lo, hi }) }),
  },
  'trust-in-acks': {
    what: 'the worker goes on after the consumer acks of the log, not after what the sink has',
    worker: (io, world, shard) => ({
      ...io,
      recover: async () => {
        const state = await io.recover();
        return { ...state, hi: Math.min(acksOf(world).get(shard) ?? 0, state.lastSequence) };
      },
      settled(place, block, mine) {
        if (!world.chance(0.1)) acksOf(world).set(shard, block.hi);
        io.settled(place, block, mine);
      },
    }),
  },
  'adopt-as-own': {
    what: "another's block under the same number is taken for one's own",
    worker: (io) => ({
      ...io,
      readBack: async (place, block) =>
        (await io.readBack(place, block)) === undefined ? undefined : { lo: block.lo, hi: block.hi },
    }),
  },
  'adopt-without-recovery': {
    what: "after another's block only its end is taken over, not the retries inside it",
    worlds: {
      gateways: 2,
      workers: 3,
      shards: 1,
      faults: ['stall log lines', 'stall network'],
      faultCount: 10,
      ackTimeoutMs: 500,
    },
    retriedSet: 'not after another',
  },
  'no-retry-check': {
    what: 'batches that were sent again are stored again',
    worker: (io) => ({ ...io, plan: async (_, block) => block }),
  },
  'reused-ids-swallowed': {
    what: 'a batch of which as many events are stored under its id is taken for a copy, whatever its events are',
    worlds: { counting: 1, faults: ['kill client'], faultCount: 8, clients: 2 },
    stored: (stored) => ({
      ...stored,
      async eventCounts(questions) {
        const prints = await stored.fingerprints(questions);
        const counts = await stored.eventCounts(questions);
        return questions.map(({ eventIds }, i) =>
          (prints[i]?.events ?? 0) >= eventIds.length
            ? new Map(eventIds.map((id) => [id, 1]))
            : (counts[i] ?? new Map()),
        );
      },
    }),
  },
  'copies-in-block-alone': {
    what: 'copies of a batch are looked for in the block at hand, and not in the sink',
    stored: () => ({
      fingerprints: async (batches) => batches.map(() => noEvents),
      eventCounts: async (questions) => questions.map(() => new Map()),
    }),
  },
  'day-of-last-message': {
    what: 'a block belongs to the day of its last message, which two workers may cut apart, and not of its first',
    worlds: { workers: 3, shards: 1, faults: ['freeze worker', 'stall network'], faultCount: 10, blockRows: 2 },
    worker: (io) => ({
      ...io,
      async gather(generation, hi) {
        const block = await io.gather(generation, hi);
        return typeof block === 'object' ? { ...block, day: utcDay(block.lastTimeMs) } : block;
      },
    }),
  },
  'retries-not-rebuilt': {
    what: 'a worker that starts does not learn which batches were sent again before',
    worlds: { gateways: 2, shards: 1, faults: ['stall log lines', 'kill worker'], faultCount: 14, ackTimeoutMs: 500 },
    retriedSet: 'never',
  },
  'deferred-forgotten': {
    what: 'messages that were deferred do not become part of the next block',
    worker(io) {
      let planned = { lo: 0, duplicate: 0 };
      return {
        ...io,
        async plan(place, block) {
          const next = await io.plan(place, block);
          planned = { lo: next.lo, duplicate: next.duplicate };
          return next;
        },
        insert: (place, block) => io.insert(place, { ...block, ...planned }),
      };
    },
  },
  'gap-taken': {
    what: 'what was trimmed meanwhile is taken for never written: no second look at the sink',
    worlds: {
      workers: 3,
      shards: 1,
      faults: ['freeze worker'],
      faultCount: 8,
      longestFreezeMs: 60_000,
      replayMs: 1_000,
      blockRows: 2,
    },
    worker: (io) => ({
      ...io,
      async gather(generation, hi) {
        const block = await io.gather(generation, hi);
        return typeof block === 'object' ? { ...block, lo: hi + 1 } : block;
      },
    }),
  },
  'republish-keeps-attempt': {
    what: 'a gateway that publishes a message again does not mark its batches as sent again',
    wire: (open, world) => (onReply) => {
      const wire = open(onReply);
      return {
        ...wire,
        send(subject, token, payload) {
          wire.send(subject, token, payload);
          if (world.chance(0.05)) wire.send(subject, `${token}-again`, payload);
        },
      };
    },
  },
  'hedge-keeps-attempt': {
    what: 'the second copy of a slow message does not say that it is one (HEDGE-1)',
    worlds: { hedgeMs: 20 },
    hedgesUnmarked: true,
  },
  'ack-before-log': {
    what: 'a gateway acknowledges what it has sent to the log, before the log does',
    wire: (open) => (onReply) => {
      const wire = open(() => undefined);
      return {
        ...wire,
        send(subject, token, payload) {
          wire.send(subject, token, payload);
          const data = encoder.encode(JSON.stringify({ stream: `EV_${subject.split('.')[1]}`, seq: 1 }));
          const reply = { data, headers: undefined as never, string: () => new TextDecoder().decode(data) };
          queueMicrotask(() => onReply(token, reply));
        },
      };
    },
  },
  'letters-dropped': {
    what: 'a batch that the sink refuses is left out of its block, and not put into the dead letters',
    worlds: { poison: 0.1 },
    dropsLetters: true,
  },
  'rewind-not-noticed': {
    what: 'a log that lost its end, or another message at the end of what is loaded, does not stop the shard (LOAD-8)',
    breakLog: true,
    worlds: { gateways: 2, shards: 1, faults: ['rewind log', 'kill gateway', 'freeze worker'], faultCount: 8 },
    worker: (io) => ({
      ...io,
      recover: async () => {
        const state = await io.recover();
        return { ...state, replaced: false, lastSequence: Math.max(state.lastSequence, state.hi) };
      },
    }),
  },
  'doubt-forgotten': {
    what: 'a connection to the log that breaks while a worker recovers is not looked into',
    forgetsDoubt: true,
  },
  'trust-in-watermark': {
    what: 'a gateway takes a watermark for an answer about what it accepted before the log lost its end',
    breakLog: true,
    trustsWatermark: true,
  },
  'attempt-always-1': {
    what: 'a client does not number its sends',
    attempt: () => 1,
  },
} as const satisfies Record<string, Weakness>;

export type WeaknessName = keyof typeof weaknesses;
