/** LOAD-6 on a real stream and the real engine: what cannot be stored goes to the dead letters, and its neighbours are stored as they are. */
import { create } from '@bufbuild/protobuf';
import { jetstream } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import { deadStream } from '../../lib/subjects.js';
import { createRandom, encodeBatch, integer, makeBatch } from '../../lib/testing/batches.js';
import { makeRichEvent } from '../../lib/testing/rich-events.js';
import { until } from '../../lib/testing/until.js';
import { storedPayload } from '../testing/payloads.js';
import { createSharedEngines, type Engines } from '../testing/shard-scene.js';
import { contentOf } from './block.js';

const random = createRandom(9);
const engines = createSharedEngines();
test.after(() => engines.end());
const on = (name: string, run: (engines: Engines) => Promise<void>): void =>
  void test(name, async () => run(await engines.use()));

let batches = 0;

/** Events of a batch, encoded, named after it. */
function events(id: string, count: number, rich = false): Uint8Array {
  const made = rich ? Array.from({ length: count }, () => makeRichEvent(random)) : makeBatch(random, count).events;
  made.forEach((event, i) => {
    event.eventId = `${id}.${i}`;
  });
  return encodeBatch(create(EventBatchSchema, { events: made }));
}

const good = (count: number, rich = false): { id: string; payload: Uint8Array; bytes: Uint8Array } => {
  const id = `good-${++batches}`;
  const bytes = events(id, count, rich);
  return { id, bytes, payload: storedPayload(random, { tenant: 'acme', batchId: id, events: count, bytes }) };
};

/** A type that no contract has: ClickHouse finds no name for it. */
const badEvent = Uint8Array.of(0x0a, 5, 0x0a, 1, 0x78, 0x10, 99);
const bad = (count = 1, attempt = 1, id = `bad-${++batches}`): { id: string; payload: Uint8Array } => {
  const bytes = Buffer.concat(Array.from({ length: count }, () => badEvent));
  return { id, payload: storedPayload(random, { tenant: 'acme', batchId: id, attempt, events: count, bytes }) };
};

on(
  'one bad batch among hundreds is found; the others are stored, with the values that they have alone',
  async ({ scene, clickhouse }) => {
    const [shard, alone] = [await scene(), await scene()];
    const neighbours = [good(20, true), good(20, true)] as const;
    const before = Array.from({ length: 150 }, () => good(3));
    const after = Array.from({ length: 150 }, () => good(3));
    const poison = bad(2);
    for (let i = 0; i < 150; i += 50) await shard.publish(...before.slice(i, i + 50).map(({ payload }) => payload));
    const sequence = await shard.publish(neighbours[0].payload, poison.payload, neighbours[1].payload);
    for (let i = 0; i < 150; i += 50) await shard.publish(...after.slice(i, i + 50).map(({ payload }) => payload));
    await shard.load();
    assert.equal(await shard.blocks(), [{ block: 1, lo: 1, hi: 7, accepted: 940, duplicate: 0, dead: 2, rows: 940 }]);
    const [letter, ...more] = await shard.letters();
    assert.is(more.length, 0);
    assert.equal(
      { ...letter, bytes: Buffer.from(letter?.bytes ?? []), reason: '' },
      {
        kind: 'refused',
        reason: '',
        shard: shard.shard,
        stream: `EV_${shard.shard}`,
        generation: await shard.generation(),
        sequence,
        index: 1,
        tenant: 'acme',
        batchId: poison.id,
        events: 2,
        bytes: Buffer.from(poison.payload),
      },
    );
    assert.match(letter?.reason ?? '', /UNKNOWN_ELEMENT_OF_ENUM.*99/);
    assert.not.ok(shard.seen.stuck);
    // The neighbours, without any poison near them.
    await alone.publish(neighbours[0].payload, neighbours[1].payload);
    await alone.load();
    const values = async (of: number): Promise<string[]> =>
      (
        await clickhouse.rows<Record<string, unknown>>(
          'SELECT * EXCEPT (_shard, _stream, _block, _lo, _hi, _hi_at, _accepted, _duplicate, _dead) FROM sluice.events ' +
            'WHERE _shard = {of:UInt32} AND batch_id IN {ids:Array(String)} ORDER BY event_id',
          { of, ids: neighbours.map(({ id }) => id) },
        )
      ).map((row) => JSON.stringify(row));
    assert.is((await values(shard.shard)).length, 40);
    assert.equal(await values(shard.shard), await values(alone.shard));
  },
);

on('a message that is no sequence of batches goes whole, before it can swallow its neighbours', async ({ scene }) => {
  const shard = await scene();
  const [a, b, c, d] = [good(3), good(4), good(5), good(6)];
  const garbage = Buffer.from('{"not": "protobuf"}');
  await shard.publish(a.payload);
  await shard.publish(garbage);
  await shard.publish(b.payload);
  // Cut in the middle: the next message's bytes would fill it.
  await shard.publish(c.payload, d.payload.subarray(0, d.payload.length - 9));
  await shard.publish(good(1).payload);
  await shard.load();
  assert.equal(await shard.blocks(), [{ block: 1, lo: 1, hi: 5, accepted: 8, duplicate: 0, dead: 1 + 5 + 1, rows: 8 }]);
  const letters = await shard.letters();
  assert.equal(
    letters.map(({ kind, sequence, index, tenant, batchId }) => ({ kind, sequence, index, tenant, batchId })),
    [
      { kind: 'unframed', sequence: 2, index: 0, tenant: '', batchId: '' },
      { kind: 'unframed', sequence: 4, index: 0, tenant: 'acme', batchId: c.id },
    ],
  );
  assert.ok(Buffer.from(letters[0]?.bytes ?? []).equals(garbage));
});

on(
  'a block of bad batches alone is deferred; a batch sent again is dead again, and none is stored',
  async ({ scene }) => {
    const shard = await scene();
    const [one, two] = [bad(2), bad(3)];
    await shard.publish(one.payload, two.payload);
    await shard.publish(bad(2, 2, one.id).payload);
    await shard.load();
    assert.equal(await shard.blocks(), []);
    assert.is(shard.committed(), 2);
    await shard.publish(good(1).payload);
    await shard.load();
    assert.equal(await shard.blocks(), [{ block: 1, lo: 1, hi: 3, accepted: 1, duplicate: 0, dead: 7, rows: 1 }]);
    const places = (await shard.letters()).map(({ sequence, index, batchId }) => `${sequence}.${index} ${batchId}`);
    assert.equal([...new Set(places)].sort(), [`1.0 ${one.id}`, `1.1 ${two.id}`, `2.0 ${one.id}`].sort());
  },
);

on('a copy that LOAD-5 had left out is stored when the one before it is refused', async ({ scene }) => {
  const shard = await scene();
  const { id, bytes } = good(3);
  const poisoned = storedPayload(random, {
    tenant: 'acme',
    batchId: id,
    events: 4,
    bytes: Buffer.concat([bytes, badEvent]),
  });
  // The gateway that it was sent to again has refused the event.
  const mended = storedPayload(random, { tenant: 'acme', batchId: id, attempt: 2, events: 3, bytes });
  await shard.publish(poisoned, good(1).payload);
  await shard.publish(mended);
  await shard.load();
  assert.equal(await shard.blocks(), [{ block: 1, lo: 1, hi: 2, accepted: 4, duplicate: 0, dead: 4, rows: 4 }]);
  assert.is((await shard.letters()).length, 1);
});

on('bad and sent again in one message: what is cut out by LOAD-5 and by LOAD-6 keeps its place', async ({ scene }) => {
  const shard = await scene();
  const [a, b] = [good(3), good(4)];
  await shard.publish(a.payload);
  await shard.load();
  const again = storedPayload(random, { tenant: 'acme', batchId: a.id, attempt: 2, events: 3, bytes: a.bytes });
  const poison = bad(1, 2);
  await shard.publish(again, poison.payload, b.payload);
  await shard.load();
  assert.equal((await shard.blocks())[1], { block: 2, lo: 2, hi: 2, accepted: 4, duplicate: 3, dead: 1, rows: 4 });
  assert.equal(
    (await shard.letters()).map(({ sequence, index, batchId }) => [sequence, index, batchId]),
    [[2, 1, poison.id]],
  );
});

on(
  'when nearly every batch is refused it is not the batches: the shard waits and nothing is thrown out',
  async ({ scene }) => {
    const shard = await scene();
    await shard.publish(...Array.from({ length: 40 }, () => bad().payload), good(1).payload);
    const loader = shard.start();
    await until('the alarm is raised', () => shard.seen.stuck);
    await loader.stop(0);
    assert.equal([await shard.blocks(), await shard.letters(), shard.committed()], [[], [], 0]);
  },
);

on(
  'full dead letters stop the shard with an alarm and drop nothing; it goes on when there is room',
  async ({ scene, nats, jsm }) => {
    const shard = await scene();
    const js = jetstream(nats.nc);
    const { config } = await jsm.streams.info(deadStream);
    await jsm.streams.update(deadStream, { ...config, max_bytes: 200_000 });
    for (const size of [20_000, 500]) {
      let full = false;
      while (!full) {
        full = await js.publish('dead.99.filler', Buffer.alloc(size)).then(
          () => false,
          () => true,
        );
      }
    }
    await shard.publish(bad(1500).payload, good(2).payload);
    const loader = shard.start({ standstillMs: 300, hintMs: 100 });
    await until('the alarm is raised', () => shard.seen.lettersBlocked);
    await until('the reason', () => /stream DEAD of dead letters cannot be/.test(loader.wait()?.reason ?? ''));
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal([await shard.blocks(), shard.committed()], [[], 0]);
    await jsm.streams.purge(deadStream, { filter: 'dead.99.filler' });
    await until('it goes on', () => shard.committed() === 1);
    await loader.stop(5_000);
    assert.equal(await shard.blocks(), [{ block: 1, lo: 1, hi: 1, accepted: 2, duplicate: 0, dead: 1500, rows: 2 }]);
    assert.is((await shard.letters()).length, 1);
    assert.not.ok(shard.seen.lettersBlocked);
    await jsm.streams.update(deadStream, config);
  },
);

on('sealed dead letters stop the shard, which says what to do; done so, it goes on', async ({ scene, jsm }) => {
  const shard = await scene();
  await shard.publish(bad(3).payload);
  await shard.load();
  const { config } = await jsm.streams.info(deadStream);
  await jsm.streams.update(deadStream, { ...config, sealed: true } as typeof config);
  await shard.publish(bad(5).payload, good(2).payload);
  const loader = shard.start({ standstillMs: 300, hintMs: 100 });
  await until('the reason', () => /The stream DEAD is sealed .* remove it/.test(loader.wait()?.reason ?? ''));
  await jsm.streams.delete(deadStream);
  await until('it goes on', () => shard.committed() === 2);
  await loader.stop(5_000);
  assert.equal(
    (await shard.letters()).map(({ sequence, events }) => [sequence, events]),
    [[2, 5]],
  );
});

on('events that a gateway of an older contract could not judge are judged by the loader', async ({ scene }) => {
  const shard = await scene();
  const bytes = Buffer.concat([
    events('judged', 2),
    // No event_id, no type: the contract of this build refuses it, and ClickHouse would not.
    Uint8Array.of(0x0a, 4, 0x22, 2, 0x68, 0x69),
  ]);
  const stored = { tenant: 'acme', batchId: 'judged', events: 3, bytes, unknownFields: true };
  const whole = storedPayload(random, stored);
  await shard.publish(good(1).payload, whole, good(1).payload);
  // Known to be of the same contract, or without unknown fields: believed.
  await shard.publish(storedPayload(random, { ...stored, batchId: 'believed', unknownFields: false }));
  await shard.load();
  assert.equal(await shard.blocks(), [{ block: 1, lo: 1, hi: 2, accepted: 7, duplicate: 0, dead: 1, rows: 7 }]);
  const [letter] = await shard.letters();
  assert.equal([letter?.kind, letter?.index, letter?.events, letter?.batchId], ['rescan', 1, 1, 'judged']);
  assert.match(letter?.reason ?? '', /^1 of 3 events: event 2, event_id/);
  assert.ok(Buffer.from(letter?.bytes ?? []).equals(whole));
});

on(
  'bytes broken at random never stop a shard: each batch is stored or dead, and whole ones are stored',
  async ({ scene }) => {
    const shard = await scene();
    const whole: string[] = [];
    let broken = 0;
    for (let message = 0; message < 6; message++) {
      const payloads: Uint8Array[] = [];
      for (let i = 0; i < 8; i++) {
        if (random() < 0.8) {
          const { id, payload } = good(2);
          payloads.push(payload);
          whole.push(`${id}.0`, `${id}.1`);
          continue;
        }
        const payload = Buffer.from(
          storedPayload(random, { tenant: 'acme', batchId: `broken-${broken++}`, events: 2 }),
        );
        for (let n = integer(random, 1, 3); n > 0; n--)
          payload[integer(random, 100, payload.length - 1)] = integer(random, 0, 255);
        // Those that break the whole message have a test of their own.
        if (!contentOf(payload).unframed) payloads.push(payload);
      }
      await shard.publish(...payloads);
    }
    await shard.load();
    assert.ok(broken > 4);
    const stored = await shard.events();
    assert.equal(
      whole.filter((id) => stored.get(id) !== 1),
      [],
    );
    const blocks = await shard.blocks();
    assert.is(
      blocks.reduce((sum, { rows }) => sum + rows, 0),
      blocks.reduce((sum, { accepted }) => sum + accepted, 0),
    );
    assert.ok((await shard.letters()).length > 0);
  },
);

test.run();
