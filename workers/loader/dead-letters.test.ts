/** LOAD-6's rules DLQ-1 to DLQ-4, with trials with given answers. On the real engine: dead-letters.it.test.ts. */
import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { createRandom, integer } from '../../lib/testing/batches.js';
import { type Block, contentOf, createCutter } from './block.js';
import { partRefused, partRescanned, partUnframed, placeOf, type Trial, withoutPlaces } from './dead-letters.js';
import { batchIdIn, eachFrame, eventsIn, framed } from './frames.js';
import { controlBatch } from './rescan.js';

function batch(batchId: string, events = 1, more: { unknownFields?: boolean; contract?: string } = {}): Uint8Array {
  const meta = { tenant: 'acme', batchId, attempt: 1, eventCount: events, ...more };
  const body = Array.from({ length: events }, (_, i) => ({ eventId: `${batchId}.${i}` }));
  return framed([
    toBinary(StoredBatchSchema, create(StoredBatchSchema, meta)),
    toBinary(StoredBatchSchema, create(StoredBatchSchema, { events: body })),
  ]);
}

function block(messages: readonly Uint8Array[]): Block {
  const cutter = createCutter({ rows: 1e6, bytes: 1e9, delayMs: 1 });
  messages.forEach((data, i) => void cutter.add({ sequence: 10 + i, timeMs: 0, data }, 0));
  return cutter.cut('rows');
}

const idsIn = (messages: readonly Uint8Array[]): string[] => {
  const ids: string[] = [];
  for (const data of messages) assert.ok(eachFrame(data, (frame) => void ids.push(batchIdIn(data, frame))));
  return ids;
};

/** Refuses whatever holds a batch whose id says so. */
function picky(): { trial: Trial; trials: () => number } {
  let trials = 0;
  return {
    async trial(messages) {
      trials++;
      const bad = idsIn(messages).find((id) => id.startsWith('bad'));
      return bad === undefined ? undefined : `cannot read ${bad}`;
    },
    trials: () => trials,
  };
}

test('each refused batch is found by halves, and what is left is the rest, in place (DLQ-2)', async () => {
  const random = createRandom(4);
  for (let round = 0; round < 60; round++) {
    const messages = Array.from({ length: integer(random, 1, 12) }, (_, m) =>
      Array.from({ length: integer(random, 1, 8) }, (_, i) => `${random() < 0.1 ? 'bad' : 'good'}-${m}-${i}`),
    );
    const whole = block(messages.map((ids) => Buffer.concat(ids.map((id) => batch(id, 2)))));
    const { trial } = picky();
    const { block: rest, dead } = await partRefused(whole, trial, controlBatch);
    const ids = messages.flat();
    const bad = ids.filter((id) => id.startsWith('bad'));
    assert.equal(
      idsIn(rest.messages),
      ids.filter((id) => id.startsWith('good')),
    );
    assert.equal(
      dead.map(({ sequence, index, batchId, reason, events }) => `${sequence}.${index} ${batchId} ${reason} ${events}`),
      bad.map((id) => {
        const [, m, i] = id.split('-');
        return `${10 + Number(m)}.${i} ${id} cannot read ${id} 2`;
      }),
    );
    assert.equal([rest.rows, rest.dead], [whole.rows - 2 * bad.length, 2 * bad.length]);
    rest.messages.forEach((data, k) => {
      const [first] = idsIn([data]);
      assert.is(first, messages[(rest.sequences[k] as number) - 10]?.[rest.batchIndexes[k] as number]);
    });
    const again = withoutPlaces(whole, new Map(dead.map((one) => [placeOf(one), one])));
    assert.equal(idsIn(again.messages), idsIn(rest.messages));
  }
});

test('one bad batch among a thousand takes some thirty trials', async () => {
  const { trial, trials } = picky();
  const ids = Array.from({ length: 1000 }, (_, i) => (i === 617 ? 'bad' : `good-${i}`));
  const { dead } = await partRefused(block(ids.map((id) => batch(id))), trial, controlBatch);
  assert.is(dead.length, 1);
  assert.ok(trials() < 50, String(trials()));
});

test('a block that is refused only as a whole, or no more, stays whole', async () => {
  const whole = block(['a', 'b', 'c'].map((id) => batch(id)));
  const onlyAll: Trial = async (messages) => (messages.length === 3 ? 'too much at once' : undefined);
  for (const trial of [onlyAll, async () => undefined]) {
    const parted = await partRefused(whole, trial, controlBatch);
    assert.is(parted.block, whole);
    assert.equal(parted.dead, []);
  }
});

test('a batch that is refused alone once, because its bytes did not all arrive, stays (DLQ-2)', async () => {
  const { trial } = picky();
  let cutOff = 0;
  const lossy: Trial = async (messages) => {
    const [id, ...others] = idsIn(messages);
    if (id === 'good-5' && others.length === 0 && cutOff++ === 0) return 'unexpected end of data';
    return trial(messages);
  };
  const whole = block(['good-1', 'good-2', 'good-3', 'bad', 'good-5', 'bad-6'].map((id) => batch(id)));
  const { dead } = await partRefused(whole, lossy, controlBatch);
  assert.equal(
    dead.map(({ batchId }) => batchId),
    ['bad', 'bad-6'],
  );
  assert.is(cutOff, 2);
});

test('when nearly all are refused, or a surely good batch is, nothing is taken out (DLQ-3)', async () => {
  const mostly = block(Array.from({ length: 100 }, (_, i) => batch(i % 50 === 7 ? `good-${i}` : `bad-${i}`)));
  const { trial, trials } = picky();
  assert.is((await partRefused(mostly, trial, controlBatch)).block, mostly);
  assert.ok(trials() <= 22);
  const few = block(['bad-1', 'bad-2', 'good'].map((id) => batch(id)));
  assert.is((await partRefused(few, picky().trial, controlBatch)).dead.length, 2);
  const broken: Trial = async () => 'the server does not know this format';
  assert.is((await partRefused(few, broken, controlBatch)).block, few);
});

test('what cannot be found out now is no verdict', async () => {
  const whole = block(['bad', 'good'].map((id) => batch(id)));
  let trials = 0;
  const down: Trial = async () => {
    if (++trials === 3) throw new Error('down');
    return 'refused';
  };
  try {
    await partRefused(whole, down, whole.messages[1] as Uint8Array);
    assert.unreachable('there was a verdict');
  } catch (error) {
    assert.ok(error instanceof Error);
  }
});

test('what is refused is reported one by one, as it is found (DLQ-2)', async () => {
  const { trial } = picky();
  const whole = block(['a', 'bad-1', 'b', 'bad-2'].map((id) => batch(id, 2)));
  const found: string[] = [];
  const { dead } = await partRefused(whole, trial, controlBatch, {
    found: async ({ batchId, sequence, index, events }) => void found.push(`${sequence}.${index} ${batchId} ${events}`),
  });
  assert.equal(found, ['11.0 bad-1 2', '13.0 bad-2 2']);
  assert.is(dead.length, 2);
});

test('an unlisted error costs a batch only when good ones pass before and after (DLQ-5)', async () => {
  const doubtful = { doubtful: true };
  const one = block(['a', 'b', 'bad', 'c'].map((id) => batch(id)));
  assert.equal((await partRefused(one, picky().trial, controlBatch, doubtful)).dead.length, 1);
  // More than half: it is rather the server.
  const most = block(['bad-1', 'bad-2', 'c'].map((id) => batch(id)));
  assert.is((await partRefused(most, picky().trial, controlBatch, doubtful)).block, most);
  // In trouble from some moment on: nothing is taken out, and it is tried again later. Whenever it begins.
  for (let from = 1; from < 16; from++) {
    let trials = 0;
    const { trial } = picky();
    const failing: Trial = async (messages) => (++trials >= from ? 'out of something' : trial(messages));
    const dead = await partRefused(one, failing, controlBatch, doubtful).then(
      (parted) => parted.dead.map(({ batchId }) => batchId),
      () => [],
    );
    assert.equal(
      dead.filter((id) => id !== 'bad'),
      [],
      `from trial ${from}`,
    );
  }
});

test('messages that are no sequence of batches are taken out whole, with what they name (DLQ-1)', () => {
  const cut = batch('cut').subarray(0, 12);
  const whole = block([batch('a', 3), Buffer.from('garbage'), Buffer.concat([batch('b', 2), cut]), batch('c')]);
  const { block: rest, dead } = partUnframed(whole);
  assert.equal(idsIn(rest.messages), ['a', 'c']);
  assert.equal([rest.sequences, rest.rows, rest.dead], [[10, 13], 4, 4]);
  assert.equal(
    dead.map(({ sequence, tenant, batchId, events }) => [sequence, tenant, batchId, events]),
    [
      [11, '', '', 1],
      [12, 'acme', 'b', 3],
    ],
  );
  const fine = block([batch('a')]);
  assert.is(partUnframed(fine).block, fine);
});

test('events that this contract refuses leave their batch; it is looked at only when the gateway asked for it (DLQ-4)', () => {
  let judged = 0;
  const contract = {
    revision: 'new',
    judge(events: Uint8Array) {
      judged++;
      // Of two events of the same length the first one is refused.
      return { refused: 1, reason: 'event 0: no', rest: events.subarray(events.length / 2) };
    },
  };
  const old = batch('old', 2, { unknownFields: true, contract: 'old' });
  const whole = block([
    Buffer.concat([batch('a'), old, batch('b')]),
    batch('new', 2, { unknownFields: true, contract: 'new' }),
    batch('plain', 2, { contract: 'old' }),
  ]);
  const { block: rest, dead } = partRescanned(whole, contract);
  assert.is(judged, 1);
  assert.equal(idsIn(rest.messages), ['a', 'old', 'b', 'new', 'plain']);
  assert.equal(rest.batchIndexes, [0, 1, 2, 0, 0]);
  assert.equal([rest.rows, rest.dead], [whole.rows - 1, 1]);
  const [letter] = dead;
  assert.equal([letter?.sequence, letter?.index, letter?.batchId, letter?.events], [10, 1, 'old', 1]);
  assert.equal(letter?.reason, '1 of 2 events: event 0: no');
  assert.ok(Buffer.from(letter?.bytes ?? []).equals(old));
  eachFrame(rest.messages[1] as Uint8Array, (frame) => {
    assert.is(eventsIn(rest.messages[1] as Uint8Array, frame)?.length, 1);
  });
  assert.ok(rest.messages.every((data) => !contentOf(data).unframed));
});

test.run();
