/** L5's rules R1 to R5, against look-ups that say what they are told. The random model: loader-model.test.ts. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { sizeDelimitedDecodeStream } from '@bufbuild/protobuf/wire';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { type Block, contentOf, startBlock } from './block.js';
import { framed } from './frames.js';
import { retryGuard, suspectMs } from './retries.js';

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
  const cutter = startBlock({ rows: 1e6, bytes: 1e9, delayMs: 1 });
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

function guardWith(stored: Readonly<Record<string, readonly string[]>> = {}, most?: number) {
  const asked = { counts: [] as string[], eventIds: [] as string[] };
  const guard = retryGuard(
    {
      async counts(batches) {
        asked.counts.push(...batches.map(({ batchId }) => batchId));
        return batches.map(({ batchId }) => stored[batchId]?.length ?? 0);
      },
      async eventIds(batches) {
        asked.eventIds.push(...batches.map(({ batchId }) => batchId));
        return batches.map(({ batchId }) => stored[batchId] ?? []);
      },
    },
    most,
  );
  return { guard, asked };
}

test('a block without a retry is passed on as it is, and nobody is asked', async () => {
  const { guard, asked } = guardWith({ a: ['1'] });
  const plain = block([[batch('a', 1, ['1']), batch('b', 1, ['2'])]]);
  assert.is(await guard.plan(plain), plain);
  assert.equal(asked, { counts: [], eventIds: [] });
});

test('only suspects are asked for, and only what is stored is left out; 0 counts as a retry (R1)', async () => {
  const { guard, asked } = guardWith({ a: ['1', '2'], b: ['3'], other: ['9'] });
  const planned = await guard.plan(
    block([
      [batch('x', 1, ['x1']), batch('a', 2, ['1', '2']), batch('y', 1, ['y1'])],
      [batch('b', 0, ['3']), batch('c', 7, ['4'])],
      [batch('other', 1, ['9'])],
    ]),
  );
  assert.equal(asked.counts, ['a', 'b', 'c']);
  assert.equal(await left(planned), ['10.0 x: x1', '10.2 y: y1', '11.1 c: 4', '12.0 other: 9']);
  assert.equal([planned.rows, planned.duplicate], [4, 3]);
  assert.equal([planned.lo, planned.hi], [10, 12]);
});

test('copies in the block count one after the other, the first copy wherever it lies (R3)', async () => {
  const { guard } = guardWith();
  const planned = await guard.plan(
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
  const { guard } = guardWith();
  const planned = await guard.plan(block([[batch('a', 2, ['1']), batch('a', 2, ['1'], 'zeta')]]));
  assert.is((await left(planned)).length, 2);
});

test('of a batch that is there in part only the missing events are left, each id as often as it is missing (R4)', async () => {
  const { guard, asked } = guardWith({ a: ['1', '3'], twice: ['7'] });
  const planned = await guard.plan(
    block([
      [batch('a', 2, ['1', '2', '3', '4']), batch('twice', 2, ['7', '7', '8'])],
      [batch('a', 3, ['1', '2', '3', '4', '5']), batch('b', 2, ['6'])],
    ]),
  );
  assert.equal(asked.eventIds, ['a', 'twice']);
  assert.equal(await left(planned), ['10.0 a: 2 4', '10.1 twice: 7 8', '11.0 a: 5', '11.1 b: 6']);
  assert.equal([planned.rows, planned.duplicate], [6, 7]);
  // Everything else of the batch is as it was.
  const [, ...body] = planned.messages[0] as Uint8Array;
  assert.is(fromBinary(StoredBatchSchema, Uint8Array.from(body)).contract, 'c');
});

test('an identity stays a suspect for an hour of the log after a retry, so that a late first copy is found (R2)', async () => {
  const { guard, asked } = guardWith({ a: ['1'] });
  await guard.plan(block([[batch('a', 2, ['1'])]]));
  assert.equal(await left(await guard.plan(block([[batch('a', 1, ['1']), batch('b', 1, ['2'])]], noon + suspectMs))), [
    '10.1 b: 2',
  ]);
  assert.equal(asked.counts, ['a', 'a']);
  const late = block([[batch('a', 1, ['1'])]], noon + suspectMs + 1);
  assert.is(await guard.plan(late), late);
  assert.is(guard.size, 0);
});

test('after a recovery what the warehouse tells counts from the next message on, however old it is (R2)', async () => {
  const { guard } = guardWith({ a: ['1'] });
  guard.begin([{ tenant: 'acme', batchId: 'a' }], true);
  assert.is((await guard.plan(block([[batch('b', 1, ['2'])]], noon + 5 * suspectMs))).rows, 1);
  assert.is((await guard.plan(block([[batch('a', 1, ['1'])]], noon + 6 * suspectMs))).rows, 0);
  const late = block([[batch('a', 1, ['1'])]], noon + 6 * suspectMs + 1);
  assert.is(await guard.plan(late), late);
});

test('a set that is full, or was not told in full, makes every batch a suspect for its hour (R5)', async () => {
  const full = guardWith({ a: ['1'], z: ['9'] }, 2);
  await full.guard.plan(block([[batch('a', 2, ['1']), batch('b', 2, ['2']), batch('c', 2, ['3'])]]));
  assert.is(full.guard.size, 2);
  // a was dropped from the set.
  assert.equal(
    await left(await full.guard.plan(block([[batch('a', 1, ['1']), batch('z', 1, ['9'])]], noon + suspectMs))),
    [],
  );
  const later = block([[batch('z', 1, ['9'])]], noon + suspectMs + 1);
  assert.is(await full.guard.plan(later), later);
  const untold = guardWith({ a: ['1'] });
  untold.guard.begin([], false);
  assert.equal(await left(await untold.guard.plan(block([[batch('a', 1, ['1'])]]))), []);
});

test("batches without an id are nobody's copies", async () => {
  const { guard, asked } = guardWith();
  const planned = await guard.plan(block([[batch('', 0, ['1']), batch('', 0, ['1'])]]));
  assert.equal([planned.rows, asked.counts.length], [2, 0]);
});

test('a plan that failed is made again from the same block, and forgets no retry', async () => {
  let fails = true;
  const guard = retryGuard({
    async counts(batches) {
      if (fails) throw new Error('down');
      return batches.map(() => 1);
    },
    eventIds: async (batches) => batches.map(() => []),
  });
  const cut = block([[batch('a', 2, ['1'])]]);
  try {
    await guard.plan(cut);
    assert.unreachable('it was planned without an answer');
  } catch (error) {
    assert.is((error as Error).message, 'down');
  }
  fails = false;
  assert.equal([(await guard.plan(cut)).rows, (await guard.plan(block([[batch('a', 1, ['1'])]]))).rows], [0, 0]);
});

test('what is left counts as the cutter counts it', async () => {
  const { guard } = guardWith({ a: ['1', '3'] });
  const planned = await guard.plan(block([[batch('a', 2, ['1', '2', '3']), batch('b', 1, ['4', '5'])]]));
  // The batch that lost events still says how many it had: only the loader's sums are right.
  assert.is(planned.rows, 3);
  assert.ok(planned.messages.every((data) => !contentOf(data).unframed));
});

test.run();
