/**
 * A batch id that is used again for other events: a client that starts its counter again, or gives every batch one name. The loader
 * stores each event once; audit, where and GetBatchStatus say so, and see a loader that does not.
 */
import { spawn } from 'node:child_process';
import { create } from '@bufbuild/protobuf';
import { jetstream } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import { testEnvironment } from '../../lib/config/index.js';
import { generationOf } from '../../lib/log-streams.js';
import { batchSubject, shardStream } from '../../lib/subjects.js';
import { addTenant } from '../../lib/tenants.js';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import { freePort } from '../../lib/testing/nats.js';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { until } from '../../lib/testing/until.js';
import { blockName, insertStatement } from '../clickhouse/schema/index.js';
import { batchStatuses } from '../ledger/batch-status.js';
import { createLedgerStore } from '../ledger/ledger-store.js';
import { endScenes, type LedgerScene, withScene } from '../testing/ledger-scene.js';
import { storedPayload } from '../testing/payloads.js';
import { keyOf } from './frames.js';

test.after(endScenes);

const random = createRandom(31);

/** A batch of events with these ids, of one user each. */
function payload(batchId: string, attempt: number, ids: readonly string[], tenant = 'acme'): Uint8Array {
  const { events } = makeBatch(random, ids.length);
  for (const [i, event] of events.entries()) Object.assign(event, { eventId: ids[i], userId: `of ${ids[i]}` });
  const bytes = encodeBatch(create(EventBatchSchema, { events }));
  return storedPayload(random, { tenant, batchId, attempt, events: ids.length, bytes });
}

/** How often each event is stored. */
async function stored({ clickhouse, table }: LedgerScene): Promise<Record<string, number>> {
  const rows = await clickhouse.rows<{ id: string; n: string }>(
    `SELECT event_id AS id, toString(count()) AS n FROM ${table} WHERE tenant != '' GROUP BY id ORDER BY id`,
  );
  return Object.fromEntries(rows.map(({ id, n }) => [id, Number(n)]));
}

const once = (...ids: readonly string[]): Record<string, number> =>
  Object.fromEntries([...ids].sort().map((id) => [id, 1]));

const even = ({ difference, faults }: { readonly difference: number; readonly faults: unknown }): void =>
  assert.equal({ difference, faults }, { difference: 0, faults: [] });

test('of a batch id that is used again every event is stored once, and audit and where say which is which', async () => {
  await withScene(2, async (scene) => {
    const { nats, jsm } = scene;
    const js = jetstream(nats.nc);
    const publish = async (shard: number, ...payloads: readonly Uint8Array[]): Promise<void> =>
      void (await js.publish(batchSubject(shard, 'acme'), Buffer.concat(payloads)));
    const worker = await scene.worker();
    const loaded = (): Promise<unknown> =>
      until('loaded', async () => {
        const result = await scene.audit();
        even(result);
        return result.total.inFlight === 0;
      });
    try {
      await publish(0, payload('w-1', 0, ['a1']));
      await loaded();
      // Fewer, as many and more than are there; in the same message, in the next, on another shard; with every attempt.
      await publish(0, payload('w-1', 0, ['b1']), payload('w-1', 2, ['c1', 'c2']), payload('w-1', 0, ['b1']));
      await publish(0, payload('w-1', 7, ['a1', 'c2', 'd1', 'd2', 'd3']));
      await loaded();
      await publish(1, payload('w-1', 2, ['e1', 'c1']), payload('w-1', 0, ['e2']));
      await loaded();
      await publish(1, payload('w-1', 3, ['e1', 'c1']), payload('w-1', 1, ['f1']));
      // All that was there is a union of contents; and an event that a batch names twice.
      await publish(
        0,
        payload('w-1', 4, ['a1', 'b1', 'c1', 'c2', 'd1', 'd2', 'd3', 'e1', 'e2']),
        payload('g', 0, ['g1', 'g1']),
      );
      await publish(0, payload('g', 0, ['g1', 'g2']), payload('g', 2, ['g1', 'g1']));
      await loaded();
      const all = ['a1', 'b1', 'c1', 'c2', 'd1', 'd2', 'd3', 'e1', 'e2', 'f1', 'g2'];
      assert.equal(await stored(scene), { ...once(...all), g1: 2 });
      even(await scene.auditTenant('acme'));
      const { total } = await scene.audit();
      assert.equal([total.accepted, total.stored, total.duplicate], [31, 13, 18]);

      const w1 = await scene.where('w-1');
      assert.equal([w1.kind, w1.contents, w1.rows], ['batch', 8, []]);
      assert.equal(
        w1.copies.map(({ shard, sequence, index, state, rows, elsewhere }) => [
          shard,
          sequence,
          index,
          state,
          rows?.rows,
          elsewhere,
        ]),
        [
          [0, 1, 0, 'stored', 1, 0],
          [0, 2, 0, 'stored', 1, 0],
          [0, 2, 1, 'stored', 2, 0],
          [0, 2, 2, 'duplicate', undefined, 1],
          [0, 3, 0, 'stored', 3, 2],
          [0, 4, 0, 'duplicate', undefined, 9],
          [1, 1, 0, 'stored', 1, 1],
          [1, 1, 1, 'stored', 1, 0],
          [1, 2, 0, 'duplicate', undefined, 2],
          [1, 2, 1, 'stored', 1, 0],
        ],
      );
      assert.ok(w1.copies.every(({ missing }) => missing.length === 0));
      const event = await scene.where('e1');
      assert.equal(
        event.copies.map(({ shard, sequence, state }) => [shard, sequence, state]),
        [
          [0, 4, 'duplicate'],
          [1, 1, 'stored'],
          [1, 2, 'duplicate'],
        ],
      );
      const told = await scene.run('ledger/where-main.ts', ['--tenant', 'acme', 'w-1']);
      assert.match(told.out, /^batch id w-1 holds 8 different sets of events; they are told apart by event_id\n/);
      assert.match(told.out, /3 rows in block \d+ of shard 0.*\n {2}2 of its events are left out as duplicates/);
      assert.not.match(told.out, /erased since/);

      const question = { tenant: 'acme', batchId: 'w-1' };
      const answers = await batchStatuses(
        { nc: nats.nc, jsm, store: createLedgerStore(scene.clickhouse, scene.target) },
        [question],
      );
      const answer = answers.get(keyOf('acme', 'w-1'));
      assert.equal([answer?.state, answer?.stored], ['stored', 10]);
    } finally {
      worker.child.kill('SIGKILL');
      await worker.exited;
    }
  });
});

test('a loader that takes other events under a used id for duplicates is found by audit, and where names what it did', async () => {
  await withScene(1, async (scene) => {
    const { nats, jsm, clickhouse, target } = scene;
    const generation = generationOf(await jsm.streams.info(shardStream(0)));
    const js = jetstream(nats.nc);
    const publish = (...payloads: readonly Uint8Array[]) =>
      js.publish(batchSubject(0, 'acme'), Buffer.concat(payloads));
    const first = payload('w-1', 0, ['run1-1', 'run1-2']);
    const other = payload('x', 1, ['x-1']);
    await publish(first);
    await publish(payload('w-1', 0, ['run2-1', 'run1-2']), other);
    await publish(payload('w-1', 2, ['run1-1', 'run1-2']));
    const store = async (
      block: bigint,
      lo: bigint,
      hi: bigint,
      accepted: number,
      duplicate: number,
      bytes: Uint8Array,
    ) => {
      const day = new Date().toISOString().slice(0, 10);
      const constants = { day, stream: generation, shard: 0, block, lo, hi, accepted, duplicate, dead: 0 };
      await clickhouse.insertBlock(insertStatement(target, constants, [bytes]), blockName(constants), [bytes]);
    };
    // As many were there: the old way to tell.
    await store(1n, 1n, 1n, 2, 0, first);
    await store(2n, 2n, 3n, 1, 4, other);
    const audit = await scene.audit();
    assert.equal([audit.difference, audit.faultCount], [1, 1]);
    const [fault] = audit.faults;
    assert.equal([fault?.block, fault?.lo, fault?.hi, fault?.difference], [2, 2, 2, 1]);
    assert.match(fault?.message ?? '', /1 events? .*left out as duplicates? .*not stored.*run2-1 of batch w-1/);
    const tenant = await scene.auditTenant('acme');
    assert.equal([tenant.difference, tenant.faultCount, tenant.faults[0]?.lo], [1, 1, 2]);
    assert.match(tenant.faults[0]?.message ?? '', /batch w-1 .* 1 are lost: run2-1; the id has other rows/);

    const lost = await scene.where('run2-1');
    assert.equal(
      lost.copies.map(({ sequence, state }) => [sequence, state]),
      [[2, 'wrongly left out']],
    );
    const batch = await scene.where('w-1');
    assert.equal(
      batch.copies.map(({ sequence, state, missing }) => [sequence, state, missing]),
      [
        [1, 'stored', []],
        [2, 'wrongly left out', ['run2-1']],
        [3, 'duplicate', []],
      ],
    );
    const told = await scene.run('ledger/where-main.ts', ['--tenant', 'acme', 'run2-1']);
    assert.match(told.out, /left out as a duplicate, and not stored: the rows of batch w-1 are other events/);
    const command = await scene.run('ledger/audit-main.ts', []);
    assert.is(command.code, 1);
    assert.match(command.out, /FAULT shard 0 block 2, messages 2 to 2 \[\+1\]/);
  });
});

/** A gateway as a process. */
async function startGateway(natsUrl: string): Promise<{ readonly url: string; end(): Promise<void> }> {
  const port = await freePort();
  const main = programPath('gateway/main.ts');
  const flags = [
    '--nats-url',
    natsUrl,
    '--port',
    `${port}`,
    '--metrics-port',
    '0',
    '--shards',
    '2',
    '--log-level',
    'warn',
  ];
  const child = spawn(process.execPath, [...programFlags, main, ...flags], {
    env: testEnvironment(),
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await new Promise<void>((resolve, reject) => {
    child.once('message', () => resolve());
    void gone.then(() => reject(new Error('the gateway ended before it was ready')));
  });
  return {
    url: `http://127.0.0.1:${port}`,
    async end() {
      child.kill('SIGKILL');
      await gone;
    },
  };
}

test('over HTTP: whatever a client says of its attempt, its second run loses nothing, and its retries are no second events', async () => {
  await withScene(2, async (scene) => {
    const { key } = await addTenant(scene.nats.nc, { tenant: 'acme' });
    const gateway = await startGateway(scene.nats.url);
    const worker = await scene.worker();
    try {
      const longAgo = new Date(Date.now() - 20 * 60_000).toISOString();
      const ways: Record<string, { readonly body?: object; readonly header?: boolean }> = {
        without: {},
        zero: { body: { attempt: 0 } },
        second: { body: { attempt: 2 } },
        header: { header: true },
        // Such a batch may have lain somewhere, so the gateway takes its 1 for "unknown" (INGEST-5).
        late: { body: { attempt: 1, sentAt: longAgo } },
      };
      const post = async (way: string, events: readonly string[]): Promise<void> => {
        const { body, header } = ways[way] ?? {};
        const batchId = `worker7-${way}`;
        const answer = await fetch(`${gateway.url}/v1/events/batch`, {
          method: 'POST',
          headers: {
            authorization: `Bearer ${key}`,
            'content-type': 'application/json',
            ...(header === true ? { 'idempotency-key': batchId } : {}),
          },
          body: JSON.stringify({
            ...(header === true ? {} : { batchId }),
            ...body,
            events: events.map((name) => ({
              eventId: `${name}-${way}`,
              type: 'EVENT_TYPE_CLICK',
              occurredAt: '2026-01-31T12:00:00Z',
            })),
          }),
        });
        assert.is(answer.status, 202, await answer.text());
      };
      let sent = 0;
      const postAll = async (...events: readonly string[]): Promise<void> => {
        for (const way of Object.keys(ways)) await post(way, events);
        sent += events.length * Object.keys(ways).length;
      };
      const loaded = (): Promise<unknown> =>
        until('loaded', async () => {
          const result = await scene.audit();
          even(result);
          return result.total.inFlight === 0 && result.total.accepted === sent;
        });
      await postAll('run1');
      await loaded();
      await postAll('run2');
      await loaded();
      // Each run tries again, and a third one has an event of the first.
      await postAll('run2');
      await postAll('run1');
      await postAll('run3', 'run1');
      await loaded();
      const names = Object.keys(ways).flatMap((way) => ['run1', 'run2', 'run3'].map((run) => `${run}-${way}`));
      assert.equal(await stored(scene), once(...names));
      even(await scene.auditTenant('acme'));
    } finally {
      worker.child.kill('SIGKILL');
      await worker.exited;
      await gateway.end();
    }
  });
});

test.run();
