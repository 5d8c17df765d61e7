/** The protocol step by step, against a scripted clickhouse. Worlds at random: sim/. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Block, maxSpanMs } from './block.js';
import {
  type Ending,
  type InsertFailure,
  type LoaderEvent,
  loadShard,
  type ShardIo,
  type ShardState,
} from './loader.js';

const block = (lo: number, hi: number, more: Partial<Block> = {}): Block => ({
  lo,
  hi,
  day: '2026-03-01',
  rows: 1,
  duplicate: 0,
  dead: 0,
  batches: 1,
  bytes: 1,
  messages: [],
  sequences: [],
  batchIndexes: [],
  retried: false,
  unframed: false,
  unknownFields: false,
  reason: 'delay',
  firstTimeMs: 0,
  lastTimeMs: 0,
  traces: [],
  ...more,
});

const state = (more: Partial<ShardState> = {}): ShardState => ({
  generation: 'g1',
  firstSequence: 1,
  lastSequence: 100,
  block: 0,
  hi: 0,
  replaced: false,
  others: [],
  accepted: false,
  deferBytes: 1_000,
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
  /** What is left of the next block; without a script, all. */
  plan?: (Partial<Block> | Error)[];
  isolate?: (Partial<Block> | 'same' | Error)[];
  insert?: ('ok' | Error)[];
  readBack?: ({ lo: number; hi: number; hiAtMs?: number } | 'nothing' | Error)[];
  giveUpAfter?: number;
}): Promise<{ ending: Ending; calls: string[]; events: LoaderEvent[]; settled: Block[] }> {
  const calls: string[] = [];
  const settled: Block[] = [];
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
    async plan(place, cut) {
      if (script.plan === undefined) return cut;
      calls.push(`plan#${place.block}[${cut.lo},${cut.hi}]`);
      return { ...cut, ...next(script.plan, 'plan') };
    },
    async isolate(place, cut) {
      calls.push(`isolate#${place.block}[${cut.lo},${cut.hi}]`);
      const left = next(script.isolate, 'isolate');
      return left === 'same' ? cut : { ...cut, ...left };
    },
    smaller(cut) {
      calls.push(`smaller[${cut.lo},${cut.hi}]`);
      return cut.lo < cut.hi;
    },
    deferred: (place, cut) => void calls.push(`deferred#${place.block}[${cut.lo},${cut.hi}]`),
    classify: (error) => (error instanceof Refused ? error.failure : 'transient'),
    async readBack(place) {
      calls.push(`read#${place.block}`);
      const found = next(script.readBack, 'readBack');
      return found === 'nothing' ? undefined : found;
    },
    settled(place, cut, mine) {
      settled.push(cut);
      calls.push(`${mine ? 'mine' : 'theirs'}#${place.block}`);
    },
    tell: (event) => void events.push(event),
    async pause(ms) {
      assert.ok(ms > 0 && ms <= 60_000);
      pauses++;
      calls.push('pause');
    },
    stopping: () => stopping,
    givingUp: () => script.giveUpAfter !== undefined && pauses >= script.giveUpAfter,
  };
  return { ending: await loadShard(io), calls, events, settled };
}

test('the next block starts after the hi that ClickHouse reports, under the next number (LOAD-3)', async () => {
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

test('a lost reply is no loss: the INSERT failed by what it said, and reading back finds it (LOAD-2)', async () => {
  const { calls } = await play({
    recover: [state()],
    gather: [block(1, 5)],
    insert: [new Refused('transient')],
    readBack: [{ lo: 1, hi: 5 }],
  });
  assert.equal(calls.slice(2), ['insert#1[1,5]', 'pause', 'read#1', 'mine#1', 'gather>5']);
});

test('an INSERT that failed and left nothing is sent again as the very same block (LOAD-2)', async () => {
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

test("another worker's block is not taken over by its hi alone: recover in full (LOAD-3)", async () => {
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

test('a zombie that wakes with an old number finds the block of the living and recovers (LOAD-2, LOAD-3)', async () => {
  const { calls } = await play({
    recover: [state({ block: 1, hi: 5 }), state({ block: 9, hi: 90 })],
    gather: [block(6, 8)],
    insert: ['ok'],
    readBack: [{ lo: 6, hi: 30 }],
  });
  assert.equal(calls, ['recover', 'gather>5', 'insert#2[6,8]', 'read#2', 'theirs#2', 'recover', 'gather>90']);
});

test('a block of the same range that ends with another message is not mine: the log lost its end in between (LOAD-8)', async () => {
  const cut = block(6, 8);
  for (const [hiAtMs, whose] of [
    [cut.lastTimeMs + 5, 'theirs'],
    [cut.lastTimeMs, 'mine'],
    [0, 'mine'],
  ] as const) {
    const { calls } = await play({
      recover: [state({ block: 1, hi: 5 }), state({ block: 2, hi: 8 })],
      gather: [cut],
      insert: ['ok'],
      readBack: [{ lo: 6, hi: 8, hiAtMs }],
    });
    assert.equal(calls.slice(0, 5), ['recover', 'gather>5', 'insert#2[6,8]', 'read#2', `${whose}#2`]);
  }
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

test('reading back is tried until ClickHouse answers; nothing is inserted on a guess', async () => {
  const { calls } = await play({
    recover: [state()],
    gather: [block(1, 5)],
    insert: ['ok'],
    readBack: [new Error('down'), new Error('down'), { lo: 1, hi: 5 }],
  });
  assert.equal(calls.slice(2), ['insert#1[1,5]', 'read#1', 'pause', 'read#1', 'pause', 'read#1', 'mine#1', 'gather>5']);
});

test('content that ClickHouse refuses is taken out, and the block is stored without it (LOAD-6)', async () => {
  const { calls, events, settled } = await play({
    recover: [state()],
    gather: [block(1, 5, { rows: 10 })],
    insert: [new Refused('content'), 'ok'],
    readBack: ['nothing', { lo: 1, hi: 5 }],
    isolate: [new Error('down'), { rows: 7, dead: 3 }],
  });
  assert.equal(calls.slice(2), [
    'insert#1[1,5]',
    // It may be there in spite of the answer, or be another's.
    'read#1',
    'isolate#1[1,5]',
    'pause',
    'isolate#1[1,5]',
    'insert#1[1,5]',
    'read#1',
    'mine#1',
    'gather>5',
  ]);
  assert.equal([settled[0]?.rows, settled[0]?.dead], [7, 3]);
  assert.not.ok(events.some((event) => event.kind === 'insert-failed'));
});

test("content that is no batch's fault is reported and tried again, slowly, and never skipped (LOAD-6)", async () => {
  const { calls, events } = await play({
    recover: [state()],
    gather: [block(1, 5)],
    insert: [new Refused('content'), new Refused('content'), 'ok'],
    readBack: ['nothing', 'nothing', { lo: 1, hi: 5 }],
    isolate: ['same', 'same'],
  });
  assert.is(calls.filter((call) => call === 'insert#1[1,5]').length, 3);
  const waits = events.flatMap((event) => (event.kind === 'insert-failed' ? [event.waitMs] : []));
  assert.equal(waits, [5_000, 10_000]);
});

test('a block of which ClickHouse refuses all is deferred into the next one (LOAD-5, LOAD-6)', async () => {
  const { calls, settled } = await play({
    recover: [state()],
    gather: [block(1, 5, { rows: 10 }), block(6, 8)],
    insert: [new Refused('content'), 'ok'],
    readBack: ['nothing', { lo: 1, hi: 8 }],
    isolate: [{ rows: 0, dead: 10 }],
  });
  assert.equal(calls.slice(4), [
    'isolate#1[1,5]',
    'deferred#1[1,5]',
    'gather>5',
    'insert#1[1,8]',
    'read#1',
    'mine#1',
    'gather>8',
  ]);
  assert.equal([settled[0]?.rows, settled[0]?.dead], [1, 10]);
});

test('a block of which all is stored already is deferred: its messages become the front of the next block (LOAD-5)', async () => {
  const { calls, settled } = await play({
    recover: [state({ block: 2, hi: 4 })],
    gather: [
      block(5, 6, { day: '2026-03-01', bytes: 10, batches: 2 }),
      block(7, 7, { day: '2026-03-02', bytes: 20, firstTimeMs: 5, lastTimeMs: 5 }),
      block(8, 9, { day: '2026-03-02', bytes: 40, rows: 30, firstTimeMs: 9, lastTimeMs: 12 }),
    ],
    plan: [
      { rows: 0, duplicate: 6 },
      { rows: 0, duplicate: 2, dead: 1 },
      { rows: 25, duplicate: 5 },
    ],
    insert: ['ok'],
    readBack: [{ lo: 5, hi: 9 }],
  });
  assert.equal(calls, [
    'recover',
    'gather>4',
    'plan#3[5,6]',
    'deferred#3[5,6]',
    'gather>6',
    'plan#3[7,7]',
    'deferred#3[5,7]',
    'gather>7',
    'plan#3[8,9]',
    'insert#3[5,9]',
    'read#3',
    'mine#3',
    'gather>9',
  ]);
  const [whole] = settled;
  assert.equal(
    [whole?.day, whole?.rows, whole?.duplicate, whole?.dead, whole?.bytes, whole?.firstTimeMs, whole?.lastTimeMs],
    ['2026-03-01', 25, 13, 1, 70, 0, 12],
  );
});

test('what is deferred is bounded by bytes and by messages: then a tombstone is written, and the log can be trimmed (LOAD-5)', async () => {
  for (const [first, second] of [
    [block(1, 5, { bytes: 600 }), block(6, 8, { bytes: 600 })],
    [block(1, 5_000), block(5_001, 10_001)],
  ] as const) {
    const { calls, settled } = await play({
      recover: [state()],
      gather: [first, second],
      plan: [
        { rows: 0, duplicate: 1 },
        { rows: 0, duplicate: 1 },
      ],
      insert: ['ok'],
      readBack: [{ lo: 1, hi: second.hi }],
    });
    assert.equal(
      calls.filter((call) => /^(?:deferred|insert|mine)/.test(call)),
      [`deferred#1[1,${first.hi}]`, `insert#1[1,${second.hi}]`, 'mine#1'],
    );
    assert.equal([settled[0]?.rows, settled[0]?.duplicate], [0, 2]);
  }
});

test('what is deferred does not wait for a block of much later, whose day is another: it gets a tombstone (LOAD-5)', async () => {
  const { calls, settled } = await play({
    recover: [state()],
    gather: [block(1, 5), block(6, 8, { firstTimeMs: maxSpanMs + 1, lastTimeMs: maxSpanMs + 1 })],
    plan: [{ rows: 0, duplicate: 1 }, { rows: 3 }],
    insert: ['ok', 'ok'],
    readBack: [
      { lo: 1, hi: 5 },
      { lo: 6, hi: 8 },
    ],
  });
  assert.equal(calls.slice(6), ['insert#1[1,5]', 'read#1', 'mine#1', 'insert#2[6,8]', 'read#2', 'mine#2', 'gather>8']);
  assert.equal(
    settled.map(({ rows }) => rows),
    [0, 3],
  );
});

test('what is deferred is forgotten with a recovery: the messages are read again (LOAD-3, LOAD-5)', async () => {
  const { calls } = await play({
    recover: [state(), state()],
    gather: [block(1, 5), 'again', block(1, 5)],
    plan: [
      { rows: 0, duplicate: 1 },
      { rows: 0, duplicate: 1 },
    ],
  });
  assert.equal(calls, [
    'recover',
    'gather>0',
    'plan#1[1,5]',
    'deferred#1[1,5]',
    'gather>5',
    'recover',
    'gather>0',
    'plan#1[1,5]',
    'deferred#1[1,5]',
    'gather>5',
  ]);
});

test('a gap behind what is deferred waits for another look at ClickHouse too (LOAD-3, LOAD-5)', async () => {
  const { calls, events } = await play({
    recover: [state(), state({ block: 4, hi: 20 })],
    gather: [block(1, 5), block(21, 22), block(21, 22)],
    plan: [{ rows: 0, duplicate: 1 }, {}],
    insert: ['ok'],
    readBack: [{ lo: 21, hi: 22 }],
  });
  assert.equal(calls.slice(4, 8), ['gather>5', 'recover', 'gather>20', 'plan#5[21,22]']);
  assert.not.ok(events.some((event) => event.kind === 'gap'));
});

test('nothing is stored before it is known what of it is stored already (LOAD-5)', async () => {
  const { calls, events } = await play({
    recover: [state()],
    gather: [block(1, 5)],
    plan: [new Error('down'), new Error('down'), {}],
    insert: ['ok'],
    readBack: [{ lo: 1, hi: 5 }],
  });
  assert.equal(calls.slice(2, 8), ['plan#1[1,5]', 'pause', 'plan#1[1,5]', 'pause', 'plan#1[1,5]', 'insert#1[1,5]']);
  assert.is(events.filter((event) => event.kind === 'plan-failed').length, 2);
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

test('recovery is tried until both the log and ClickHouse answer, with growing waits', async () => {
  const { events } = await play({ recover: [new Error('a'), new Error('b'), new Error('c'), state()] });
  assert.equal(
    events.flatMap((event) => (event.kind === 'recover-failed' ? [event.waitMs] : [])),
    [100, 200, 400],
  );
});

test('a stream that changed under the reader is looked at again', async () => {
  const { calls } = await play({ recover: [state(), state()], gather: ['again'] });
  assert.equal(calls, ['recover', 'gather>0', 'recover', 'gather>0']);
});

test('a stream that lost its end and went on, past what ClickHouse holds, stops the shard (LOAD-8)', async () => {
  const { ending, calls } = await play({ recover: [state({ block: 3, hi: 50, replaced: true })] });
  assert.match(ending.kind === 'stopped' ? ending.reason : '', /lost its end.*50/);
  assert.equal(calls, ['recover']);
});

test('a sequence that went backwards stops the shard (LOAD-8)', async () => {
  const { ending, calls } = await play({ recover: [state({ block: 3, hi: 101 })] });
  assert.is(ending.kind, 'stopped');
  assert.match(ending.kind === 'stopped' ? ending.reason : '', /backwards.*100.*101/);
  assert.equal(calls, ['recover']);
});

test('a stream made again stops the shard until the operator accepts it (LOAD-8)', async () => {
  const others = [{ generation: 'g0', hi: 55 }];
  const { ending } = await play({ recover: [state({ others })] });
  assert.match(ending.kind === 'stopped' ? ending.reason : '', /made again.*g1.*g0/);
  const accepted = await play({ recover: [state({ others, accepted: true })] });
  assert.is(accepted.ending.kind, 'left');
});

test('a block that does not start at hi+1 waits for one more look at ClickHouse (LOAD-3)', async () => {
  // Somebody else loaded and trimmed 6 to 8 meanwhile.
  const trimmed = await play({
    recover: [state({ block: 1, hi: 5 }), state({ block: 2, hi: 8 })],
    gather: [block(9, 12), block(9, 12)],
    insert: ['ok'],
    readBack: [{ lo: 9, hi: 12 }],
  });
  assert.equal(trimmed.calls.slice(0, 5), ['recover', 'gather>5', 'recover', 'gather>8', 'insert#3[9,12]']);
  assert.not.ok(trimmed.events.some((event) => event.kind === 'gap'));
  // None did: they are gone.
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

test('a block that is too large is cut again from where ClickHouse is; a single message is tried again', async () => {
  const { calls } = await play({
    recover: [state(), state()],
    gather: [block(1, 8), block(1, 1)],
    insert: [new Refused('large'), new Refused('large'), 'ok'],
    readBack: ['nothing', 'nothing', { lo: 1, hi: 1 }],
  });
  assert.equal(calls, [
    'recover',
    'gather>0',
    'insert#1[1,8]',
    'pause',
    'read#1',
    'smaller[1,8]',
    'recover',
    'gather>0',
    'insert#1[1,1]',
    'pause',
    'read#1',
    'smaller[1,1]',
    'insert#1[1,1]',
    'read#1',
    'mine#1',
    'gather>1',
  ]);
});

test('an unlisted error takes a block apart after five tries, and not before (LOAD-6)', async () => {
  const unclear = (): Error => new Refused('unclear');
  const { calls, events } = await play({
    recover: [state()],
    gather: [block(1, 5, { rows: 10 })],
    insert: [unclear(), unclear(), unclear(), new Refused('transient'), unclear(), unclear(), 'ok'],
    isolate: [{ rows: 7, dead: 3 }],
    readBack: ['nothing', 'nothing', 'nothing', 'nothing', 'nothing', 'nothing', { lo: 1, hi: 5 }],
  });
  assert.equal(
    calls.filter((call) => !/^(?:pause|read)/.test(call)),
    ['recover', 'gather>0', ...Array(6).fill('insert#1[1,5]'), 'isolate#1[1,5]', 'insert#1[1,5]', 'mine#1', 'gather>5'],
  );
  const waited = events.flatMap((event) => (event.kind === 'insert-failed' ? [event.waitMs] : []));
  assert.ok(waited.reduce((sum, ms) => sum + ms, 0) < 20_000, waited.join());
});

test('an INSERT that fails although its block is there is said', async () => {
  const { events, calls } = await play({
    recover: [state()],
    gather: [block(1, 5)],
    insert: [new Refused('content')],
    readBack: [{ lo: 1, hi: 5 }],
  });
  assert.ok(events.some((event) => event.kind === 'stored-anyway'));
  assert.equal(calls.slice(-2), ['mine#1', 'gather>5']);
});

test.run();
