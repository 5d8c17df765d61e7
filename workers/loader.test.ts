/** The protocol step by step, against a warehouse that does as it is told. The random model: loader-model.test.ts. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Block } from './block.js';
import {
  type Ending,
  type InsertFailure,
  type LoaderEvent,
  loadShard,
  type ShardIo,
  type ShardState,
} from './loader.js';

const block = (lo: number, hi: number): Block => ({
  lo,
  hi,
  day: '2026-03-01',
  rows: 1,
  batches: 1,
  bytes: 1,
  messages: [],
  reason: 'delay',
  firstTimeMs: 0,
  lastTimeMs: 0,
  traces: [],
});

const state = (more: Partial<ShardState> = {}): ShardState => ({
  generation: 'g1',
  firstSequence: 1,
  lastSequence: 100,
  block: 0,
  hi: 0,
  others: [],
  accepted: false,
  ...more,
});

class Refused extends Error {
  constructor(readonly failure: InsertFailure) {
    super(failure);
  }
}

/** Runs the loader over scripts: each call takes the next entry; an Error is thrown; an empty `gather` script stops it. */
async function play(script: {
  recover: (ShardState | Error)[];
  gather?: (Block | 'again')[];
  insert?: ('ok' | Error)[];
  readBack?: ({ lo: number; hi: number } | 'nothing' | Error)[];
  giveUpAfter?: number;
}): Promise<{ ending: Ending; calls: string[]; events: LoaderEvent[] }> {
  const calls: string[] = [];
  const events: LoaderEvent[] = [];
  let stopping = false;
  let pauses = 0;
  const next = <T>(list: (T | Error)[] | undefined, name: string): T => {
    const item = list?.shift();
    if (item === undefined) throw new Error(`the script of ${name} is at its end: ${calls.join(' ')}`);
    if (item instanceof Error) throw item;
    return item;
  };
  const io: ShardIo = {
    async recover() {
      calls.push('recover');
      return next(script.recover, 'recover');
    },
    async gather(generation, hi) {
      calls.push(`gather>${hi}`);
      assert.is(generation, 'g1');
      if (script.gather === undefined || script.gather.length === 0) {
        stopping = true;
        return undefined;
      }
      return next(script.gather, 'gather');
    },
    async insert(place, cut) {
      calls.push(`insert#${place.block}[${cut.lo},${cut.hi}]`);
      next(script.insert, 'insert');
    },
    classify: (error) => (error instanceof Refused ? error.failure : 'transient'),
    async readBack(place) {
      calls.push(`read#${place.block}`);
      const found = next(script.readBack, 'readBack');
      return found === 'nothing' ? undefined : found;
    },
    settled: (place, _, mine) => void calls.push(`${mine ? 'mine' : 'theirs'}#${place.block}`),
    tell: (event) => void events.push(event),
    async pause(ms) {
      assert.ok(ms > 0 && ms <= 60_000);
      pauses++;
      calls.push('pause');
    },
    stopping: () => stopping,
    givingUp: () => script.giveUpAfter !== undefined && pauses >= script.giveUpAfter,
  };
  return { ending: await loadShard(io), calls, events };
}

test('the next block starts after the hi that the warehouse reports, under the next number (L3)', async () => {
  const { calls, ending } = await play({
    recover: [state({ block: 7, hi: 40 })],
    gather: [block(41, 50), block(51, 60)],
    insert: ['ok', 'ok'],
    readBack: [
      { lo: 41, hi: 50 },
      { lo: 51, hi: 60 },
    ],
  });
  assert.equal(calls, [
    'recover',
    'gather>40',
    'insert#8[41,50]',
    'read#8',
    'mine#8',
    'gather>50',
    'insert#9[51,60]',
    'read#9',
    'mine#9',
    'gather>60',
  ]);
  assert.equal(ending, { kind: 'left' });
});

test('a lost reply is no loss: the INSERT failed by what it said, and reading back finds it (L2)', async () => {
  const { calls } = await play({
    recover: [state()],
    gather: [block(1, 5)],
    insert: [new Refused('transient')],
    readBack: [{ lo: 1, hi: 5 }],
  });
  assert.equal(calls.slice(2), ['insert#1[1,5]', 'pause', 'read#1', 'mine#1', 'gather>5']);
});

test('an INSERT that failed and left nothing is sent again as the very same block (L2)', async () => {
  const { calls } = await play({
    recover: [state()],
    gather: [block(1, 5)],
    insert: [new Refused('transient'), 'ok'],
    readBack: ['nothing', { lo: 1, hi: 5 }],
  });
  assert.equal(calls.slice(2), ['insert#1[1,5]', 'pause', 'read#1', 'insert#1[1,5]', 'read#1', 'mine#1', 'gather>5']);
});

test('busy means that the same block is being stored: wait and read back', async () => {
  const { calls, events } = await play({
    recover: [state()],
    gather: [block(1, 5)],
    insert: [new Refused('busy'), new Refused('busy')],
    readBack: ['nothing', { lo: 1, hi: 5 }],
  });
  assert.is(calls.filter((call) => call.startsWith('insert')).length, 2);
  assert.equal(
    events.flatMap((event) => (event.kind === 'insert-failed' ? [event.failure] : [])),
    ['busy', 'busy'],
  );
});

test("another worker's block is not taken over by its hi alone: recover in full (L3)", async () => {
  const { calls } = await play({
    recover: [state(), state({ block: 3, hi: 20 })],
    gather: [block(1, 5), block(21, 22)],
    insert: ['ok', 'ok'],
    readBack: [
      { lo: 1, hi: 9 },
      { lo: 21, hi: 22 },
    ],
  });
  assert.equal(calls.slice(2, 9), [
    'insert#1[1,5]',
    'read#1',
    'theirs#1',
    'recover',
    'gather>20',
    'insert#4[21,22]',
    'read#4',
  ]);
});

test('a zombie that wakes with an old number finds the block of the living and recovers (L2, L3)', async () => {
  const { calls } = await play({
    recover: [state({ block: 1, hi: 5 }), state({ block: 9, hi: 90 })],
    gather: [block(6, 8)],
    insert: ['ok'],
    readBack: [{ lo: 6, hi: 30 }],
  });
  assert.equal(calls, ['recover', 'gather>5', 'insert#2[6,8]', 'read#2', 'theirs#2', 'recover', 'gather>90']);
});

test('an INSERT that was taken and stored nothing leads to a recovery, not to a loop', async () => {
  const { calls } = await play({
    recover: [state(), state({ block: 1, hi: 5 })],
    gather: [block(1, 5)],
    insert: ['ok'],
    readBack: ['nothing'],
  });
  assert.equal(calls, ['recover', 'gather>0', 'insert#1[1,5]', 'read#1', 'pause', 'recover', 'gather>5']);
});

test('reading back is tried until the warehouse answers; nothing is inserted on a guess', async () => {
  const { calls } = await play({
    recover: [state()],
    gather: [block(1, 5)],
    insert: ['ok'],
    readBack: [new Error('down'), new Error('down'), { lo: 1, hi: 5 }],
  });
  assert.equal(calls.slice(2), ['insert#1[1,5]', 'read#1', 'pause', 'read#1', 'pause', 'read#1', 'mine#1', 'gather>5']);
});

test('content that the warehouse refuses is told and tried again, slowly, and never skipped (L6)', async () => {
  const { calls, events } = await play({
    recover: [state()],
    gather: [block(1, 5)],
    insert: [new Refused('content'), new Refused('content'), 'ok'],
    readBack: ['nothing', 'nothing', { lo: 1, hi: 5 }],
  });
  assert.is(calls.filter((call) => call === 'insert#1[1,5]').length, 3);
  const waits = events.flatMap((event) => (event.kind === 'insert-failed' ? [event.waitMs] : []));
  assert.equal(waits, [5_000, 10_000]);
});

test('giving up leaves the block in flight to others', async () => {
  const { ending, calls } = await play({
    recover: [state(), state()],
    gather: [block(1, 5)],
    insert: [new Error('down'), new Error('down')],
    readBack: [new Error('down'), new Error('down')],
    giveUpAfter: 2,
  });
  assert.equal(ending, { kind: 'left' });
  assert.not.ok(calls.includes('mine#1'));
});

test('recovery is tried until both the log and the warehouse answer, with growing waits', async () => {
  const { events } = await play({ recover: [new Error('a'), new Error('b'), new Error('c'), state()] });
  assert.equal(
    events.flatMap((event) => (event.kind === 'recover-failed' ? [event.waitMs] : [])),
    [100, 200, 400],
  );
});

test('a stream that changed under the reader is looked at anew', async () => {
  const { calls } = await play({ recover: [state(), state()], gather: ['again'] });
  assert.equal(calls, ['recover', 'gather>0', 'recover', 'gather>0']);
});

test('a sequence that went backwards stops the shard (L8)', async () => {
  const { ending, calls } = await play({ recover: [state({ block: 3, hi: 101 })] });
  assert.is(ending.kind, 'stopped');
  assert.match(ending.kind === 'stopped' ? ending.reason : '', /backwards.*100.*101/);
  assert.equal(calls, ['recover']);
});

test('a stream made anew stops the shard until the operator accepts it (L8)', async () => {
  const others = [{ generation: 'g0', hi: 55 }];
  const { ending } = await play({ recover: [state({ others })] });
  assert.match(ending.kind === 'stopped' ? ending.reason : '', /made anew.*g1.*g0/);
  const accepted = await play({ recover: [state({ others, accepted: true })] });
  assert.is(accepted.ending.kind, 'left');
});

test('a block that does not start at hi+1 waits for one more look at the warehouse (L3)', async () => {
  // Somebody else loaded and trimmed 6 to 8 meanwhile.
  const trimmed = await play({
    recover: [state({ block: 1, hi: 5 }), state({ block: 2, hi: 8 })],
    gather: [block(9, 12), block(9, 12)],
    insert: ['ok'],
    readBack: [{ lo: 9, hi: 12 }],
  });
  assert.equal(trimmed.calls.slice(0, 5), ['recover', 'gather>5', 'recover', 'gather>8', 'insert#3[9,12]']);
  assert.not.ok(trimmed.events.some((event) => event.kind === 'gap'));
  // Nobody did: they are gone.
  const gone = await play({
    recover: [state({ block: 1, hi: 5 }), state({ block: 1, hi: 5 })],
    gather: [block(9, 12), block(9, 14)],
    insert: ['ok'],
    readBack: [{ lo: 9, hi: 14 }],
  });
  assert.equal(gone.calls.slice(2, 5), ['recover', 'gather>5', 'insert#2[9,14]']);
  assert.equal(
    gone.events.filter((event) => event.kind === 'gap'),
    [{ kind: 'gap', from: 6, to: 8 }],
  );
});

test.run();
