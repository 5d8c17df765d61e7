import { type JetStreamClient, jetstream } from '@nats-io/jetstream';
import { headers } from '@nats-io/nats-core';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { decodeAnswer, encodeQuestion } from '../../lib/batch-status.js';
import { generationOf } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { batchStatusSubject, batchSubject, shardStream } from '../../lib/subjects.js';
import { createRandom } from '../../lib/testing/batches.js';
import { type BlockConstants, blockName, insertStatement } from '../clickhouse/schema/index.js';
import { endScenes, type LedgerScene, withScene } from '../testing/ledger-scene.js';
import { type BatchToStore, publishStored, storedPayload } from '../testing/payloads.js';
import type { Audit } from './audit.js';
import type { TenantAudit } from './audit-tenant.js';
import { serveBatchStatus } from './batch-status.js';
import { eraseUser } from './erase.js';
import { createLedgerStore } from './ledger-store.js';
import type { Whereabouts } from './where.js';

test.after(endScenes);

const even = ({ difference, faultCount, faults }: Audit | TenantAudit): void =>
  assert.equal({ difference, faultCount, faults }, { difference: 0, faultCount: 0, faults: [] });

test('a running installation comes out even at every moment; each kind of damage is seen', async () => {
  await withScene(2, async (scene) => {
    const { nats, jsm, clickhouse, tamper, table } = scene;
    const random = createRandom(11);
    const js = jetstream(nats.nc);
    let sent = 0;
    const publish = async (batches: number, tenant = 'acme'): Promise<void> => {
      for (let i = 0; i < batches; i++) {
        const stored = { tenant, batchId: `${tenant}-${sent}-${i}`, events: 50 };
        await publishStored(js, 2, stored, storedPayload(random, stored));
        sent += 50;
      }
    };
    const worker = await scene.worker();
    const loaded = async (): Promise<void> => {
      const since = Date.now();
      for (;;) {
        const result = await scene.audit();
        even(result);
        if (result.total.inFlight === 0 && result.total.accepted === sent) return;
        assert.ok(Date.now() - since < 30_000, 'not loaded within 30 s');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };
    try {
      even(await scene.audit());
      let publishing = true;
      const load = (async () => {
        while (publishing) await publish(4);
      })();
      try {
        for (let i = 0; i < 5; i++) {
          even(await scene.audit());
          even(await scene.auditTenant('acme'));
        }
      } finally {
        publishing = false;
        await load;
      }
      await publish(6, 'other');
      await loaded();
      const asked = await nats.nc.request(batchStatusSubject, encodeQuestion({ tenant: 'acme', batchId: 'acme-0-0' }), {
        timeout: 20_000,
      });
      const status = decodeAnswer(asked.string());
      assert.is(typeof status === 'object' && status.stored, 50, 'the worker answers gateways');
      // Some of it leaves the log, as trimming does; in the middle of a block.
      const state = (await jsm.streams.info(shardStream(0))).state;
      await jsm.streams.purge(shardStream(0), { seq: state.last_seq - 3 });
      even(await scene.audit());
    } finally {
      worker.child.kill('SIGKILL');
      await worker.exited;
    }
    const healthy = await scene.audit();
    assert.equal(healthy.total, { accepted: sent, stored: sent, duplicate: 0, dead: 0, inFlight: 0, erased: 0 });

    const [victim] = await clickhouse.rows<{ id: string; shard: number; block: string }>(
      `SELECT event_id AS id, _shard AS shard, toString(_block) AS block FROM ${table} WHERE _shard = 1 AND tenant = 'acme' ` +
        'ORDER BY _block DESC LIMIT 1 OFFSET 5',
    );
    const block = Number(victim?.block);
    const first = async (): Promise<[number, number, number | undefined, number | undefined]> => {
      const result = await scene.audit();
      const [fault] = result.faults;
      return [result.difference, result.faultCount, fault?.block, fault?.difference];
    };
    await tamper(`INSERT INTO ${table} SELECT * FROM ${table} WHERE event_id = '${victim?.id}'`);
    assert.equal(await first(), [1, 1, block, -1], 'a doubled row');
    const doubled = await scene.auditTenant('acme');
    assert.equal([doubled.difference, doubled.faultCount], [1, 1]);
    assert.match(doubled.faults[0]?.message ?? '', /1 are stored twice/);
    even(await scene.auditTenant('other'));
    const command = await scene.run('ledger/audit-main.ts', []);
    assert.is(command.code, 1);
    assert.match(command.out, new RegExp(`FAULT shard 1 block ${block}, messages \\d+ to \\d+ \\[-1\\]: .*rows`));
    assert.match(command.out, /difference 1: 1 fault\n$/);

    await tamper(`ALTER TABLE ${table} DELETE WHERE event_id = '${victim?.id}'`);
    assert.equal(await first(), [1, 1, block, 1], 'a lost row');
    const lost = await scene.auditTenant('acme');
    assert.equal([lost.difference, lost.faultCount, lost.faults[0]?.difference], [1, 1, 1]);

    await tamper(`ALTER TABLE ${table} DELETE WHERE _shard = 1 AND _block = ${block - 1}`);
    const gap = await scene.audit();
    assert.match(
      gap.faults.map(({ message }) => message).join('; '),
      new RegExp(`blocks ${block - 1} to ${block - 1} are missing`),
    );
    assert.match(
      gap.faults.map(({ message }) => message).join('; '),
      /are below the last block, and in none: [\d,]+ events/,
    );

    const [other] = await clickhouse.rows<{ id: string }>(
      `SELECT event_id AS id FROM ${table} WHERE _shard = 0 ORDER BY _block DESC LIMIT 1`,
    );
    await tamper(`ALTER TABLE ${table} UPDATE _accepted = _accepted - 1 WHERE event_id = '${other?.id}'`);
    const torn = await scene.audit();
    assert.ok(
      torn.faults.some(({ shard }) => shard === 0),
      'counts that do not agree',
    );
  });
});

test('a message that was removed before it was loaded is missed; an erasure is reported as one', async () => {
  await withScene(1, async (scene) => {
    const { nats, jsm, clickhouse, target, table } = scene;
    const random = createRandom(12);
    const js = jetstream(nats.nc);
    const day = new Date().toISOString().slice(0, 10);
    const stream = generationOf(await jsm.streams.info(shardStream(0)));
    const publish = async (batchId: string, events: number): Promise<Uint8Array> => {
      const stored = { tenant: 'acme', batchId, events };
      const payload = storedPayload(random, stored);
      await publishStored(js, 1, stored, payload);
      return payload;
    };
    const store = async (block: number, lo: number, hi: number, accepted: number, payloads: Uint8Array[]) => {
      const constants: BlockConstants = {
        ...{ day, stream, shard: 0, block: BigInt(block), lo: BigInt(lo), hi: BigInt(hi) },
        ...{ accepted, duplicate: 0, dead: 0 },
      };
      await clickhouse.insertBlock(insertStatement(target, constants, payloads), blockName(constants), payloads);
    };
    const a = await publish('a', 40);
    const b = await publish('b', 40);
    const solo = await publish('solo', 1);
    await store(1, 1, 2, 80, [a, b]);
    await store(2, 3, 3, 1, [solo]);
    even(await scene.audit());

    const erase = async (of: string): Promise<number> => {
      const [user] = await clickhouse.rows<{ user: string }>(
        `SELECT user_id AS user FROM ${table} WHERE ${of} ORDER BY user DESC LIMIT 1`,
      );
      const userId = user?.user ?? '';
      const request = {
        tenant: 'acme',
        userId,
        clickhouse,
        target,
        jsm,
        shards: [0],
        waitMs: 10_000,
        logger: silentLogger,
      };
      return (await eraseUser(request)).rows;
    };
    await scene.tamper(`ALTER TABLE ${table} UPDATE user_id = 'u-1' WHERE batch_id = 'a' OR batch_id = 'solo'`);
    // All of block 2, and half of block 1.
    const erased = await erase("user_id = 'u-1'");
    assert.is(erased, 41);
    const after = await scene.audit();
    even(after);
    assert.equal(after.total, { accepted: 81, stored: 40, duplicate: 0, dead: 0, inFlight: 0, erased });

    const c = [await publish('c-0', 10), await publish('c-1', 10), await publish('c-2', 10)];
    const waiting = await scene.audit();
    even(waiting);
    assert.is(waiting.total.inFlight, 30);
    await jsm.streams.deleteMessage(shardStream(0), 5);
    await store(3, 4, 6, 20, [c[0] as Uint8Array, c[2] as Uint8Array]);
    const result = await scene.audit();
    assert.is(result.faultCount, 1);
    assert.match(result.faults[0]?.message ?? '', /removed from the middle of the log, and it was stored without them/);
  });
});

/** The second batch of message 3, `c`, in the dead letters. */
async function publishLetter(js: JetStreamClient, generation: string, data: Uint8Array): Promise<void> {
  const head = headers();
  for (const [name, value] of [
    ['Kind', 'refused'],
    ['Reason', 'an unknown enum'],
    ['Shard', '0'],
    ['Tenant', 'acme'],
    ['Events', '3'],
    ['Stream', 'EV_0'],
    ['Generation', generation],
    ['Sequence', '3'],
    ['Index', '1'],
    ['Batch-Id', 'c'],
  ] as const) {
    head.set(`Sluice-${name}`, value);
  }
  await js.publish('dead.0.acme', data, { headers: head });
}

/** What gateways are answered about the batches of the test below. */
async function checkStatuses({ nats, jsm, clickhouse, target }: LedgerScene): Promise<void> {
  const statuses = serveBatchStatus({
    nc: nats.nc,
    jsm,
    store: createLedgerStore(clickhouse, target),
    logger: silentLogger,
  });
  const ask = async (batchId: string, tenant = 'acme'): Promise<unknown> => {
    const question = encodeQuestion({ tenant, batchId });
    const answer = decodeAnswer((await nats.nc.request(batchStatusSubject, question, { timeout: 20_000 })).string());
    return typeof answer === 'string' ? answer : [answer.state, answer.stored, answer.dead, answer.reason];
  };
  // All at once: they are looked up together.
  assert.equal(await Promise.all([ask('a'), ask('c'), ask('d'), ask('a', 'other'), ask('nobody'), ask('b')]), [
    ['stored', 10, 0, ''],
    ['dead-lettered', 0, 3, 'an unknown enum'],
    ['not stored', 0, 0, ''],
    ['not stored', 0, 0, ''],
    ['not stored', 0, 0, ''],
    ['stored', 5, 0, ''],
  ]);
  const nonsense = await nats.nc.request(batchStatusSubject, '{"tenant":"acme"}', { timeout: 20_000 });
  assert.is(decodeAnswer(nonsense.string()), 'unavailable');
  await statuses.close();
}

test('copies, duplicates and dead letters are told apart, by audit and by where', async () => {
  await withScene(1, async (scene) => {
    const { nats, jsm, clickhouse, target, table } = scene;
    const random = createRandom(13);
    const js = jetstream(nats.nc);
    const generation = generationOf(await jsm.streams.info(shardStream(0)));
    const payload = (batchId: string, events: number, more: Partial<BatchToStore> = {}): Uint8Array =>
      storedPayload(random, { tenant: 'acme', batchId, events, ...more });
    const a = payload('a', 10);
    const again = Buffer.from(a);
    // The same batch with attempt 2: field 4 of the metadata.
    again[again.indexOf(Buffer.from([0x20, 0x01])) + 1] = 2;
    const b = payload('b', 5);
    const c = payload('c', 3);
    const d = payload('d', 7);
    for (const data of [a, again, Buffer.concat([b, c]), d]) {
      await js.publish(batchSubject(0, 'acme'), data);
    }
    await jsm.streams.add({ name: 'DEAD', subjects: ['dead.>'] });
    const block = {
      day: new Date().toISOString().slice(0, 10),
      stream: generation,
      shard: 0,
      block: 1n,
      lo: 1n,
      hi: 3n,
      accepted: 15,
      duplicate: 10,
      dead: 3,
    };
    await clickhouse.insertBlock(insertStatement(target, block, [a, b]), blockName(block), [a, b]);
    const without = await scene.audit();
    assert.equal([without.difference, without.faultCount], [3, 1], 'a dead letter that is nowhere is a loss');
    await publishLetter(js, generation, c);
    // A crash between letter and block leaves two.
    await publishLetter(js, generation, c);
    const sums = { accepted: 35, stored: 15, duplicate: 10, dead: 3, inFlight: 7, erased: 0 };
    const whole = await scene.audit();
    even(whole);
    assert.equal(whole.total, sums);
    const tenant = await scene.auditTenant('acme');
    even(tenant);
    assert.equal([tenant.total, tenant.copies], [sums, 5]);

    await checkStatuses(scene);

    const told = (found: Whereabouts): unknown =>
      found.copies.map(({ sequence, index, attempt, state, rows }) => [sequence, index, attempt, state, rows?.rows]);
    const ofA = await scene.where('a');
    assert.is(ofA.kind, 'batch');
    assert.equal(told(ofA), [
      [1, 0, 1, 'stored', 10],
      [2, 0, 2, 'duplicate', undefined],
    ]);
    const ofC = await scene.where('c');
    assert.equal(told(ofC), [[3, 1, 1, 'dead', undefined]]);
    assert.is(ofC.copies[0]?.reason, 'an unknown enum');
    assert.equal(ofC.dead, []);
    assert.equal(told(await scene.where('d')), [[4, 0, 1, 'in flight', undefined]]);

    const [event] = await clickhouse.rows<{ id: string }>(
      `SELECT event_id AS id FROM ${table} WHERE batch_id = 'b' LIMIT 1`,
    );
    const ofEvent = await scene.where(event?.id ?? '');
    assert.is(ofEvent.kind, 'event');
    assert.equal(told(ofEvent), [[3, 0, 1, 'stored', 1]]);
    await jsm.streams.purge(shardStream(0), { seq: 4 });
    const later = await scene.run('ledger/where-main.ts', ['--tenant', 'acme', event?.id ?? '']);
    assert.match(
      later.out,
      /batch b of acme, attempt 1\n.*its message has left the log\n.*1 row in block 1 of shard 0/,
    );
    const trimmed = await scene.where('c');
    assert.equal(
      [trimmed.copies, trimmed.dead.map(({ sequence, reason }) => [sequence, reason])],
      [[], [[3, 'an unknown enum']]],
    );
    const nobody = await scene.run('ledger/where-main.ts', ['nobody-knows']);
    assert.is(nobody.code, 2);
    assert.match(nobody.out, /never accepted/);
    even(await scene.audit());
  });
});

test.run();
