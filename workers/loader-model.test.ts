/**
 * L1–L3 under everything that can go wrong, at random: loaders that share a shard by mistake, crash and come back, freeze
 * for long and go on (zombies); INSERTs that arrive late, run long, or whose replies are lost or lie; trimming meanwhile.
 * At the end each message's rows must be in the warehouse once. Weakened protocols must fail, or this test proves nothing.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { integer, pick, type Random, seededRandom } from '../lib/testing/batches.js';
import type { Block } from './block.js';
import { type InsertFailure, loadShard, type ShardIo } from './loader.js';

/** What is left out of the protocol. */
type Weakness =
  | 'none'
  | 'no probe: INSERT without looking'
  | 'no query id: check and insert are two'
  | 'trusts its memory: no read back'
  | "takes over another's block as its own"
  | 'the day of the last message'
  | 'takes what was trimmed for never written';

interface StoredBlock {
  readonly block: number;
  readonly day: string;
  readonly lo: number;
  readonly hi: number;
  readonly messages: readonly number[];
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

async function run(seed: number, weakness: Weakness): Promise<{ lost: number; doubled: number; blocks: number }> {
  const random: Random = seededRandom(seed);
  const total = integer(random, 5, 25);
  /** Rows of each message, by sequence; some have none. */
  const rows = Array.from({ length: total + 1 }, () => (random() < 0.1 ? 0 : 1));
  const midnight = integer(random, 1, total);
  const day = (sequence: number): string => (sequence < midnight ? '2026-03-01' : '2026-03-02');
  let published = integer(random, 1, total);
  let first = 1;
  const table: StoredBlock[] = [];
  const running = new Set<string>();
  let steps: Step[] = [];
  const frozen = new Map<number, number>();
  let tick = 0;
  let faults = true;
  const server = -1;

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
        if (fails) return reply(new Reply('transient')); // L1: nothing of it is there
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
    const io: ShardIo = {
      recover: () =>
        later(me, () => {
          if (faults && random() < 0.1) throw new Error('down');
          const last = table.reduce((best, stored) => (stored.block > best.block ? stored : best), {
            block: 0,
            hi: 0,
          } as StoredBlock);
          return {
            generation: 'g',
            firstSequence: first,
            lastSequence: published,
            block: last.block,
            hi: watermark(),
            others: [],
            accepted: false,
          };
        }),
      gather: (_, hi) =>
        later(me, () => {
          const most = integer(random, 1, 6);
          const messages: number[] = [];
          let worthy = false;
          for (let at = Math.max(hi + 1, first); at <= published && !(worthy && messages.length >= most); at++) {
            messages.push(at);
            worthy ||= rows[at] === 1;
          }
          if (!worthy) return stopping ? undefined : 'again';
          const lo = messages[0]!;
          const last = messages.at(-1)!;
          return {
            lo: weakness === 'takes what was trimmed for never written' ? hi + 1 : lo,
            hi: last,
            day: day(weakness === 'the day of the last message' ? last : lo),
            rows: 1,
            batches: 1,
            bytes: 1,
            messages: messages.map((at) => Uint8Array.of(at)),
            reason: 'delay',
            firstTimeMs: 0,
            lastTimeMs: 0,
            traces: [],
          } satisfies Block;
        }),
      insert: (place, block) =>
        new Promise<void>((resolve, reject) => {
          const stored: StoredBlock = {
            block: place.block,
            day: block.day,
            lo: block.lo,
            hi: block.hi,
            messages: block.messages.map((message) => message[0]!),
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
          if (found !== undefined && weakness === "takes over another's block as its own") {
            return { lo: block.lo, hi: block.hi };
          }
          return found;
        }),
      settled: () => undefined,
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
    if (!faults && watermark() >= rows.lastIndexOf(1)) stopping = true;
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
        first = Math.max(first, integer(random, 1, watermark() + 1)); // L8: only what is loaded is trimmed
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

  const times = new Array<number>(total + 1).fill(0);
  for (const stored of table) for (const at of stored.messages) times[at]! += 1;
  let lost = 0;
  let doubled = 0;
  for (let at = 1; at <= total; at++) {
    if (rows[at] === 0) continue;
    if (times[at] === 0) lost++;
    if (times[at]! > 1) doubled++;
  }
  return { lost, doubled, blocks: table.length };
}

test('two loaders, crashes, zombies, late and lying replies: each row is stored once (L1, L2, L3)', async () => {
  let blocks = 0;
  for (let seed = 1; seed <= 2_000; seed++) {
    const { lost, doubled, blocks: stored } = await run(seed, 'none');
    blocks += stored;
    assert.equal({ seed, lost, doubled }, { seed, lost: 0, doubled: 0 });
  }
  assert.ok(blocks > 5_000);
});

for (const weakness of [
  'no probe: INSERT without looking',
  'no query id: check and insert are two',
  'trusts its memory: no read back',
  "takes over another's block as its own",
  'the day of the last message',
  'takes what was trimmed for never written',
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
