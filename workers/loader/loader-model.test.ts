/**
 * LOAD-1 to LOAD-5 under everything that can go wrong, at random: loaders that share a shard by mistake, crash and come back, freeze
 * for long and go on (zombies); INSERTs that arrive late, run long, or whose replies are lost or lie; trimming meanwhile; batches
 * that are in the log several times, whole or in part, the first copy late or not. At the end each event must be in ClickHouse
 *  once, and whenever a loader says "committed", all before must be there. Weakened protocols must fail, or this
 * test proves nothing.
 */

import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { integer, pick, type Random, seededRandom } from '../../lib/testing/batches.js';
import { utcDay } from '../../lib/timestamp.js';
import type { LogMessage } from '../reader/log-message.js';
import { startBlock } from './block.js';
import { createDeduplicator, suspectMs } from './dedup.js';
import { fingerprintOfIds, noEvents } from './fingerprint.js';
import { batchIdIn, eachFrame, eventIdIn, eventsIn } from './frames.js';
import { type InsertFailure, loadShard, type ShardIo } from './loader.js';
import type { Identity } from './stored-events.js';

/** What is left out of the protocol. */
type Weakness =
  | 'none'
  | 'no probe: INSERT without looking'
  | 'no query id: check and insert are two'
  | 'trusts its memory: no read back'
  | "takes over another's block as its own"
  | 'the day of the last message'
  | 'takes what was trimmed for never written'
  | 'no retry check'
  | 'retries are looked for in this block alone'
  | 'retries are recognised by their number alone'
  | 'the set of retries is not read again after a recovery'
  | "adopts another's block without a recovery"
  | 'a gateway publishes again without marking the copy';

interface StoredEvent {
  readonly batchId: string;
  readonly eventId: string;
  readonly attempt: number;
  readonly timeMs: number;
}

interface StoredBlock {
  readonly block: number;
  readonly day: string;
  readonly lo: number;
  readonly hi: number;
  readonly events: readonly StoredEvent[];
}

const tenant = 'acme';
const stepMs = 300_000;

/** A batch as it is in the log: the ids of its events are its name and a number. Names of one id: `b7`, and `b7-again`. */
function encoded(name: string, attempt: number, events: readonly number[]): Uint8Array {
  const [batchId = ''] = name.split('-');
  const meta = toBinary(
    StoredBatchSchema,
    create(StoredBatchSchema, { tenant, batchId, attempt, eventCount: events.length }),
  );
  const body = toBinary(
    StoredBatchSchema,
    create(StoredBatchSchema, { events: events.map((n) => ({ eventId: `${name}.${n}` })) }),
  );
  return Uint8Array.of(meta.length + body.length, ...meta, ...body);
}

/**
 * The log: some messages hold no batch, some one, some two. A batch is there once with attempt 1, or never, and up to three times
 * with a later attempt; the first copy may come up to 50 minutes after a later one. A copy may lack an event. Some ids are used
 * again for other events, by a client that starts its counter again: with copies of their own.
 */
function makeLog(random: Random, total: number, unmarked: boolean): Uint8Array[] {
  const messages: Uint8Array[][] = Array.from({ length: total + 1 }, () => []);
  const put = (at: number, bytes: Uint8Array): void => void messages[Math.min(total, Math.max(1, at))]?.push(bytes);
  const sends = Array.from({ length: total }, (_, i) => i + 1).flatMap((at) => {
    if (random() < 0.1) return [];
    return [[at, `b${at}`] as const, ...(random() < 0.2 ? [[integer(random, 1, total), `b${at}-again`] as const] : [])];
  });
  for (const [at, batchId] of sends) {
    const events = Array.from({ length: integer(random, 1, 3) }, (_, n) => n);
    const some = (): number[] => (random() < 0.2 ? events.slice(integer(random, 0, events.length - 1)) : events);
    const first = random() < 0.9 ? at + (random() < 0.3 ? integer(random, 1, 10) : 0) : undefined;
    if (first !== undefined) put(first, encoded(batchId, 1, some()));
    if (first !== undefined && random() < 0.5) continue;
    for (let copies = integer(random, 1, 3); copies > 0; copies--) {
      const attempt = unmarked ? 1 : pick(random, [0, 2, 3]);
      put(at + integer(random, 0, random() < 0.5 ? 0 : total), encoded(batchId, attempt, some()));
    }
  }
  return messages.map((parts) => Buffer.concat(parts));
}

class Reply extends Error {
  constructor(readonly failure: InsertFailure) {
    super(failure);
  }
}

/** Something that will happen, in any order with the rest. A frozen worker's own steps wait. */
interface Step {
  readonly worker: number;
  run(): void;
}

interface Outcome {
  readonly lost: number;
  readonly doubled: number;
  /** Times that a loader said "committed" of what was not stored. */
  readonly lies: number;
  readonly blocks: number;
  readonly deferred: number;
  readonly left: number;
}

async function run(seed: number, weakness: Weakness): Promise<Outcome> {
  const random: Random = seededRandom(seed);
  const total = integer(random, 5, 25);
  const payloads = makeLog(random, total, weakness === 'a gateway publishes again without marking the copy');
  const midnightMs = Date.parse('2026-03-02T00:00:00Z') - integer(random, 1, total) * stepMs;
  const timeOf = (sequence: number): number => midnightMs + sequence * stepMs;
  const message = (sequence: number): LogMessage => ({
    sequence,
    timeMs: timeOf(sequence),
    data: payloads[sequence] as Uint8Array,
  });
  /** Events of messages 1…hi. */
  const eventsUpTo = (hi: number): Set<string> => {
    const ids = new Set<string>();
    for (let at = 1; at <= hi; at++) {
      const data = payloads[at] as Uint8Array;
      eachFrame(data, (frame) => {
        for (const event of eventsIn(data, frame) ?? []) ids.add(eventIdIn(data, event));
      });
    }
    return ids;
  };
  const deferBytes = pick(random, [1, 100, 1_000]);
  let published = integer(random, 1, total);
  let first = 1;
  const table: StoredBlock[] = [];
  const running = new Set<string>();
  let steps: Step[] = [];
  const frozen = new Map<number, number>();
  let tick = 0;
  let faults = true;
  const server = -1;

  let done = 0;
  let lies = 0;
  let deferredBlocks = 0;
  let leftOut = 0;
  /** A loader says that everything up to here is in ClickHouse. */
  function committed(hi: number): void {
    done = Math.max(done, hi);
    const there = new Set(table.flatMap((stored) => stored.events.map((event) => event.eventId)));
    for (const id of eventsUpTo(hi)) if (!there.has(id)) lies++;
  }

  const watermark = (): number => table.reduce((hi, stored) => Math.max(hi, stored.hi), 0);

  const later = <T>(worker: number, what: () => T): Promise<T> =>
    new Promise((resolve, reject) => {
      steps.push({
        worker,
        run() {
          try {
            resolve(what());
          } catch (error) {
            reject(error);
          }
        },
      });
    });

  /** The server: a query begins (name taken, probe), runs, and ends (part appears, name free). */
  function submit(name: string, stored: StoredBlock, reply: (error?: Reply) => void): void {
    if (running.has(name) && weakness !== 'no query id: check and insert are two') {
      reply(new Reply('busy'));
      return;
    }
    running.add(name);
    const absent =
      weakness === 'no probe: INSERT without looking' ||
      !table.some((other) => other.day === stored.day && other.block === stored.block);
    const fails = faults && random() < 0.1;
    steps.push({
      worker: server,
      run() {
        running.delete(name);
        if (fails) return reply(new Reply('transient')); // LOAD-1: nothing of it is there
        if (absent) table.push(stored);
        reply();
      },
    });
  }

  let workers = 0;
  const alive = new Set<number>();
  let stopping = false;

  function start(): void {
    const me = workers++;
    alive.add(me);
    /** What ClickHouse knows of retried batches. */
    const known = weakness === 'retries are looked for in this block alone' ? () => [] : () => table;
    const idsOf = (batchId: string): string[] =>
      known().flatMap((stored) =>
        stored.events.filter((event) => event.batchId === batchId).map((event) => event.eventId),
      );
    const dedup = createDeduplicator({
      fingerprints: (batches) =>
        later(me, () => {
          if (faults && random() < 0.1) throw new Error('down');
          return batches.map(({ batchId }) => {
            const ids = idsOf(batchId);
            // The old way: as many events are there, so they are the same.
            return weakness === 'retries are recognised by their number alone'
              ? { ...noEvents, events: ids.length }
              : fingerprintOfIds(ids);
          });
        }),
      eventCounts: (questions) =>
        later(me, () => {
          if (faults && random() < 0.1) throw new Error('down');
          return questions.map(({ batchId, eventIds }) => {
            const ids = idsOf(batchId);
            if (weakness === 'retries are recognised by their number alone' && ids.length >= eventIds.length) {
              return new Map(eventIds.map((id) => [id, 1]));
            }
            return new Map(eventIds.map((id) => [id, ids.filter((stored) => stored === id).length]));
          });
        }),
    });
    let adopted: { block: number; hi: number } | undefined;
    const io: ShardIo = {
      recover: () =>
        later(me, () => {
          if (faults && random() < 0.1) throw new Error('down');
          const last = table.reduce((best, stored) => (stored.block > best.block ? stored : best), {
            block: 0,
            hi: 0,
          } as StoredBlock);
          const position = adopted ?? { block: last.block, hi: watermark() };
          const sinceMs = timeOf(Math.max(first, position.hi + 1)) - suspectMs;
          const retried: Identity[] = table.flatMap((stored) =>
            stored.events
              .filter((event) => event.attempt !== 1 && event.timeMs >= sinceMs)
              .map(({ batchId }) => ({ tenant, batchId })),
          );
          const again = weakness !== 'the set of retries is not read again after a recovery' && adopted === undefined;
          if (again) dedup.begin(retried, true);
          adopted = undefined;
          return {
            generation: 'g',
            firstSequence: first,
            lastSequence: published,
            ...position,
            replaced: false,
            others: [],
            accepted: false,
            deferBytes,
          };
        }),
      gather: (_, hi) =>
        later(me, () => {
          const cutter = startBlock({ rows: integer(random, 1, 8), bytes: 1_000_000, delayMs: 0 });
          for (let at = Math.max(hi + 1, first); at <= published && cutter.full() === undefined; at++) {
            if (!cutter.add(message(at), 0)) break;
          }
          if (cutter.size === 0) return stopping ? undefined : 'again';
          const block = cutter.cut('delay');
          return {
            ...block,
            lo: weakness === 'takes what was trimmed for never written' ? hi + 1 : block.lo,
            day: weakness === 'the day of the last message' ? utcDay(block.lastTimeMs) : block.day,
          };
        }),
      async plan(_, block) {
        if (weakness === 'no retry check') return block;
        const planned = await dedup.plan(block);
        leftOut += planned.duplicate;
        return planned;
      },
      isolate: async (_, block) => block,
      smaller: () => random() < 0.5,
      deferred(_, block) {
        deferredBlocks++;
        committed(block.hi);
      },
      insert: (place, block) =>
        new Promise<void>((resolve, reject) => {
          const stored: StoredBlock = {
            block: place.block,
            day: block.day,
            lo: block.lo,
            hi: block.hi,
            events: block.messages.flatMap((data, i) => {
              const events: StoredEvent[] = [];
              eachFrame(data, (frame) => {
                for (const event of eventsIn(data, frame) ?? []) {
                  events.push({
                    batchId: batchIdIn(data, frame),
                    eventId: eventIdIn(data, event),
                    attempt: frame.attempt,
                    timeMs: timeOf(block.sequences[i] as number),
                  });
                }
              });
              return events;
            }),
          };
          const reply = (error?: Reply): void => {
            // A lost reply: the caller hears of a broken connection whatever happened.
            const told = faults && random() < 0.15 ? new Reply('transient') : error;
            steps.push({ worker: me, run: () => (told === undefined ? resolve() : reject(told)) });
          };
          const name = `${place.block}`;
          const fate = faults ? random() : 1;
          if (fate < 0.1) {
            // The connection breaks, but the request still arrives, much later.
            steps.push({ worker: me, run: () => reject(new Reply('transient')) });
            steps.push({ worker: server, run: () => submit(name, stored, () => undefined) });
          } else {
            // Sent by the worker: a frozen one sends it when it wakes.
            steps.push({ worker: me, run: () => submit(name, stored, reply) });
          }
        }),
      classify: (error) => (error instanceof Reply ? error.failure : 'transient'),
      readBack: (place, block) =>
        later(me, () => {
          if (weakness === 'trusts its memory: no read back') return { lo: block.lo, hi: block.hi };
          if (faults && random() < 0.1) throw new Error('down');
          const found = table.find((stored) => stored.day === block.day && stored.block === place.block);
          if (found !== undefined && weakness === "adopts another's block without a recovery") {
            adopted = { block: found.block, hi: found.hi };
          }
          if (found !== undefined && weakness === "takes over another's block as its own") {
            return { lo: block.lo, hi: block.hi };
          }
          return found;
        }),
      settled(_, block, mine) {
        if (mine) committed(block.hi);
      },
      tell: () => undefined,
      pause: () => later(me, () => undefined),
      stopping: () => stopping,
      givingUp: () => false,
    };
    void loadShard(io).then(() => alive.delete(me));
  }

  start();
  start();
  while (steps.length > 0) {
    tick++;
    assert.ok(tick < 20_000, `seed ${seed} does not come to an end`);
    if (tick === 400) {
      faults = false;
      published = total;
      frozen.clear();
    }
    if (!faults && Math.max(done, watermark()) >= total) stopping = true;
    if (faults) {
      const dice = random();
      if (dice < 0.02 && published < total) published++;
      else if (dice < 0.03) frozen.set(pick(random, [...alive]), tick + integer(random, 5, 150));
      else if (dice < 0.04) {
        // A crash: what it waited for never comes; what the server has goes on. Another one starts.
        const victim = pick(random, [...alive]);
        steps = steps.filter((step) => step.worker !== victim);
        alive.delete(victim);
        start();
      } else if (dice < 0.05) {
        first = Math.max(first, integer(random, 1, watermark() + 1)); // LOAD-8: only what is loaded is trimmed
      }
    }
    const ready = steps.filter((step) => (frozen.get(step.worker) ?? 0) <= tick);
    if (ready.length === 0) continue;
    // The server is slow at times: its steps wait while others run.
    const step = pick(random, ready);
    if (step.worker === server && faults && random() < 0.5) continue;
    steps.splice(steps.indexOf(step), 1);
    step.run();
    // Lets every promise that follows from the step run.
    await new Promise(setImmediate);
  }
  assert.is(alive.size, 0, `seed ${seed}: a loader hangs`);

  const times = new Map<string, number>();
  for (const { eventId } of table.flatMap((stored) => stored.events)) times.set(eventId, (times.get(eventId) ?? 0) + 1);
  let lost = 0;
  for (const id of eventsUpTo(total)) if (!times.has(id)) lost++;
  const doubled = [...times.values()].filter((n) => n > 1).length;
  return { lost, doubled, lies, blocks: table.length, deferred: deferredBlocks, left: leftOut };
}

test('two loaders, crashes, zombies, late and lying replies, retries: each event is stored once (LOAD-1, LOAD-2, LOAD-3, LOAD-5)', async () => {
  let blocks = 0;
  let deferred = 0;
  let left = 0;
  for (let seed = 1; seed <= 2_000; seed++) {
    const outcome = await run(seed, 'none');
    blocks += outcome.blocks;
    deferred += outcome.deferred;
    left += outcome.left;
    const { lost, doubled, lies } = outcome;
    assert.equal({ seed, lost, doubled, lies }, { seed, lost: 0, doubled: 0, lies: 0 });
  }
  // Else it would have shown little.
  assert.ok(blocks > 5_000 && deferred > 1_000 && left > 10_000, `${blocks} ${deferred} ${left}`);
});

for (const weakness of [
  'no probe: INSERT without looking',
  'no query id: check and insert are two',
  'trusts its memory: no read back',
  "takes over another's block as its own",
  'the day of the last message',
  'takes what was trimmed for never written',
  'no retry check',
  'retries are looked for in this block alone',
  'retries are recognised by their number alone',
  'the set of retries is not read again after a recovery',
  "adopts another's block without a recovery",
  'a gateway publishes again without marking the copy',
] as const) {
  test(`the model notices a protocol that is weaker: ${weakness}`, async () => {
    for (let seed = 1; seed <= 1_000; seed++) {
      const { lost, doubled } = await run(seed, weakness);
      if (lost + doubled > 0) return;
    }
    assert.unreachable('1,000 seeds, and nothing was lost or doubled');
  });
}

test.run();
