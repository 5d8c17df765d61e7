/** LOAD-5's rules DEDUP-1 to DEDUP-6, against look-ups with given answers. Worlds at random: sim/. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { sizeDelimitedDecodeStream } from '@bufbuild/protobuf/wire';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { type Block, contentOf, createCutter } from './block.js';
import { createDeduplicator, suspectMs } from './dedup.js';
import { fingerprintOfIds } from './fingerprint.js';
import { framed } from './frames.js';

const noon = Date.parse('2026-03-01T12:00:00Z');

/** A batch with these events, as a gateway writes it. */
function batch(batchId: string, attempt: number, ids: readonly string[], tenant = 'acme'): Uint8Array {
  const meta = { tenant, batchId, attempt, eventCount: ids.length, contract: 'c' };
  const events = ids.map((eventId) => ({ eventId, name: `of ${batchId}` }));
  return framed([
    toBinary(StoredBatchSchema, create(StoredBatchSchema, meta)),
    toBinary(StoredBatchSchema, create(StoredBatchSchema, { events })),
  ]);
}

/** A block of messages, each of some batches. */
function block(messages: readonly (readonly Uint8Array[])[], atMs = noon): Block {
  const cutter = createCutter({ rows: 1e6, bytes: 1e9, delayMs: 1 });
  messages.forEach(
    (batches, i) => void cutter.add({ sequence: 10 + i, timeMs: atMs, data: Buffer.concat(batches) }, 0),
  );
  return cutter.cut('rows');
}

/** `sequence.index batch_id: event_ids` of what is left. */
async function left(of: Block): Promise<string[]> {
  const lines: string[] = [];
  for (const [i, data] of of.messages.entries()) {
    let index = of.batchIndexes[i] as number;
    const stream = sizeDelimitedDecodeStream(
      StoredBatchSchema,
      (async function* () {
        yield data;
      })(),
    );
    for await (const stored of stream) {
      assert.ok(stored.events.every(({ name }) => name === `of ${stored.batchId}`));
      lines.push(
        `${of.sequences[i]}.${index++} ${stored.batchId}: ${stored.events.map(({ eventId }) => eventId).join(' ')}`,
      );
    }
  }
  return lines;
}

const countsOf = (ids: readonly string[]): Map<string, number> => {
  const counts = new Map<string, number>();
  for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
  return counts;
};

function deduplicatorWith(stored: Readonly<Record<string, readonly string[]>> = {}, max?: number) {
  const asked = { prints: [] as string[], ids: [] as string[] };
  const dedup = createDeduplicator(
    {
      async fingerprints(batches) {
        asked.prints.push(...batches.map(({ batchId }) => batchId));
        return batches.map(({ batchId }) => fingerprintOfIds(stored[batchId] ?? []));
      },
      async eventCounts(questions) {
        asked.ids.push(...questions.map(({ batchId, eventIds }) => `${batchId}: ${eventIds.join(' ')}`));
        return questions.map(({ batchId, eventIds }) =>
          countsOf((stored[batchId] ?? []).filter((id) => eventIds.includes(id))),
        );
      },
    },
    max,
  );
  return { dedup, asked };
}

test('a block without a retry is passed on as it is, without a question', async () => {
  const { dedup, asked } = deduplicatorWith({ a: ['1'] });
  const plain = block([[batch('a', 1, ['1']), batch('b', 1, ['2'])]]);
  assert.is(await dedup.plan(plain), plain);
  assert.equal(asked, { prints: [], ids: [] });
});

test('only suspects are asked for, and only what is stored is left out; 0 counts as a retry (DEDUP-1)', async () => {
  const { dedup, asked } = deduplicatorWith({ a: ['1', '2'], b: ['3'], other: ['9'] });
  const planned = await dedup.plan(
    block([
      [batch('x', 1, ['x1']), batch('a', 2, ['1', '2']), batch('y', 1, ['y1'])],
      [batch('b', 0, ['3']), batch('c', 7, ['4'])],
      [batch('other', 1, ['9'])],
    ]),
  );
  assert.equal(asked.prints, ['a', 'b', 'c']);
  assert.equal(await left(planned), ['10.0 x: x1', '10.2 y: y1', '11.1 c: 4', '12.0 other: 9']);
  assert.equal([planned.rows, planned.duplicate], [4, 3]);
  assert.equal([planned.lo, planned.hi], [10, 12]);
});

test('copies in the block count one after the other, the first copy wherever it lies (DEDUP-3)', async () => {
  const { dedup } = deduplicatorWith();
  const planned = await dedup.plan(
    block([
      [batch('a', 2, ['1', '2'])],
      [batch('a', 1, ['1', '2']), batch('a', 3, ['1', '2'])],
      [batch('b', 1, ['3'])],
    ]),
  );
  assert.equal(await left(planned), ['10.0 a: 1 2', '12.0 b: 3']);
  assert.equal([planned.rows, planned.duplicate], [3, 4]);
});

test('the same batch id of another tenant is another batch', async () => {
  const { dedup } = deduplicatorWith();
  const planned = await dedup.plan(block([[batch('a', 2, ['1']), batch('a', 2, ['1'], 'zeta')]]));
  assert.is((await left(planned)).length, 2);
});

test('of a batch that is there in part only the missing events are left, each id as often as it is missing (DEDUP-4)', async () => {
  const { dedup, asked } = deduplicatorWith({ a: ['1', '3'], twice: ['7'] });
  const planned = await dedup.plan(
    block([
      [batch('a', 2, ['1', '2', '3', '4']), batch('twice', 2, ['7', '7', '8'])],
      [batch('a', 3, ['1', '2', '3', '4', '5']), batch('b', 2, ['6'])],
    ]),
  );
  assert.equal(asked.ids, ['a: 1 2 3 4 5', 'twice: 7 8']);
  assert.equal(await left(planned), ['10.0 a: 2 4', '10.1 twice: 7 8', '11.0 a: 5', '11.1 b: 6']);
  assert.equal([planned.rows, planned.duplicate], [6, 7]);
  // Everything else of the batch is as it was.
  const [, ...body] = planned.messages[0] as Uint8Array;
  assert.is(fromBinary(StoredBatchSchema, Uint8Array.from(body)).contract, 'c');
});

test('an id that is used again for other events swallows none of them, however many there are (DEDUP-4)', async () => {
  for (const ids of [['new'], ['n1', 'n2'], ['n1', 'n2', 'n3'], ['1', 'n2'], ['n1', '2'], ['2', '1', 'n']]) {
    for (const attempt of [0, 2]) {
      const { dedup } = deduplicatorWith({ a: ['1', '2'] });
      const planned = await dedup.plan(block([[batch('a', attempt, ids)], [batch('a', attempt, ids)]]));
      const fresh = ids.filter((id) => id.startsWith('n'));
      assert.equal(await left(planned), [`10.0 a: ${fresh.join(' ')}`]);
      assert.equal([planned.rows, planned.duplicate], [fresh.length, 2 * ids.length - fresh.length]);
    }
  }
});

test('three contents of one id, in one message and in the next, with a retry of each and one of all together (DEDUP-3, DEDUP-4)', async () => {
  const { dedup, asked } = deduplicatorWith({ a: ['1'] });
  const planned = await dedup.plan(
    block([
      [batch('a', 0, ['2', '3']), batch('a', 0, ['4']), batch('a', 0, ['1'])],
      [batch('a', 0, ['3', '2']), batch('a', 0, ['4', '3', '2', '1']), batch('a', 1, ['5'])],
    ]),
  );
  assert.equal(await left(planned), ['10.0 a: 2 3', '10.1 a: 4', '11.2 a: 5']);
  assert.equal([planned.rows, planned.duplicate], [4, 1 + 2 + 4]);
  assert.equal(asked.ids, ['a: 2 3 4 1 5'], 'only what the copies have, each once');
});

test('an ordinary retry is known by its fingerprint, in any order, and no event id is asked for (DEDUP-4)', async () => {
  const { dedup, asked } = deduplicatorWith({ a: ['1', '2', '3'], b: ['7', '7', '8'] });
  const planned = await dedup.plan(
    block([
      [batch('a', 2, ['3', '1', '2']), batch('b', 0, ['8', '7', '7']), batch('c', 0, ['5', '5'])],
      [batch('c', 2, ['5', '5'])],
    ]),
  );
  assert.equal([planned.rows, planned.duplicate, asked.ids], [2, 8, []]);
});

test('as often as an id is there, and no oftener, is it left out', async () => {
  const { dedup } = deduplicatorWith({ a: ['7', '8'] });
  const planned = await dedup.plan(block([[batch('a', 2, ['7', '7', '9']), batch('a', 3, ['7', '7', '7'])]]));
  assert.equal(await left(planned), ['10.0 a: 7 9', '10.1 a: 7']);
});

test('event ids are asked for in groups, so that many suspects do not fill the memory (DEDUP-6)', async () => {
  const groups: number[] = [];
  const dedup = createDeduplicator({
    fingerprints: async (batches) => batches.map(() => fingerprintOfIds(['x'])),
    async eventCounts(questions) {
      groups.push(questions.reduce((sum, { eventIds }) => sum + eventIds.length, 0));
      return questions.map(() => new Map([['x', 1]]));
    },
  });
  const ids = Array.from({ length: 9_000 }, (_, i) => `e${i}`);
  const planned = await dedup.plan(block([['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((id) => batch(id, 0, ids))]));
  assert.equal([planned.rows, planned.duplicate, groups], [63_000, 0, [27_000, 27_000, 9_000]]);
});

test('an identity stays a suspect for an hour of the log after a retry, so that a late first copy is found (DEDUP-2)', async () => {
  const { dedup, asked } = deduplicatorWith({ a: ['1'] });
  await dedup.plan(block([[batch('a', 2, ['1'])]]));
  assert.equal(await left(await dedup.plan(block([[batch('a', 1, ['1']), batch('b', 1, ['2'])]], noon + suspectMs))), [
    '10.1 b: 2',
  ]);
  assert.equal(asked.prints, ['a', 'a']);
  const late = block([[batch('a', 1, ['1'])]], noon + suspectMs + 1);
  assert.is(await dedup.plan(late), late);
  assert.is(dedup.size, 0);
});

test('after a recovery what ClickHouse tells counts from the next message on, however old it is (DEDUP-2)', async () => {
  const { dedup } = deduplicatorWith({ a: ['1'] });
  dedup.begin([{ tenant: 'acme', batchId: 'a' }], true);
  assert.is((await dedup.plan(block([[batch('b', 1, ['2'])]], noon + 5 * suspectMs))).rows, 1);
  assert.is((await dedup.plan(block([[batch('a', 1, ['1'])]], noon + 6 * suspectMs))).rows, 0);
  const late = block([[batch('a', 1, ['1'])]], noon + 6 * suspectMs + 1);
  assert.is(await dedup.plan(late), late);
});

test('a set that is full, or was not told in full, makes every batch a suspect for its hour (DEDUP-5)', async () => {
  const full = deduplicatorWith({ a: ['1'], z: ['9'] }, 2);
  await full.dedup.plan(block([[batch('a', 2, ['1']), batch('b', 2, ['2']), batch('c', 2, ['3'])]]));
  assert.is(full.dedup.size, 2);
  // a was dropped from the set.
  assert.equal(
    await left(await full.dedup.plan(block([[batch('a', 1, ['1']), batch('z', 1, ['9'])]], noon + suspectMs))),
    [],
  );
  const later = block([[batch('z', 1, ['9'])]], noon + suspectMs + 1);
  assert.is(await full.dedup.plan(later), later);
  const untold = deduplicatorWith({ a: ['1'] });
  untold.dedup.begin([], false);
  assert.equal(await left(await untold.dedup.plan(block([[batch('a', 1, ['1'])]]))), []);
});

test('batches without an id are no copies', async () => {
  const { dedup, asked } = deduplicatorWith();
  const planned = await dedup.plan(block([[batch('', 0, ['1']), batch('', 0, ['1'])]]));
  assert.equal([planned.rows, asked.prints.length], [2, 0]);
});

test('a plan that failed is made again from the same block, and forgets no retry', async () => {
  let fails = true;
  const dedup = createDeduplicator({
    async fingerprints(batches) {
      if (fails) throw new Error('down');
      return batches.map(() => fingerprintOfIds(['1']));
    },
    async eventCounts() {
      throw new Error('the fingerprint says enough');
    },
  });
  const cut = block([[batch('a', 2, ['1'])]]);
  try {
    await dedup.plan(cut);
    assert.unreachable('it was planned without an answer');
  } catch (error) {
    assert.is((error as Error).message, 'down');
  }
  fails = false;
  assert.equal([(await dedup.plan(cut)).rows, (await dedup.plan(block([[batch('a', 1, ['1'])]]))).rows], [0, 0]);
});

test('what is left counts as the cutter counts it', async () => {
  const { dedup } = deduplicatorWith({ a: ['1', '3'] });
  const planned = await dedup.plan(block([[batch('a', 2, ['1', '2', '3']), batch('b', 1, ['4', '5'])]]));
  // The batch that lost events still says how many it had: only the loader's sums are right.
  assert.is(planned.rows, 3);
  assert.ok(planned.messages.every((data) => !contentOf(data).unframed));
});

test.run();
