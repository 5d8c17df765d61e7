/**
 * A log that is not the one that was loaded: an older copy of its folder put back, a stream removed, purged, restored from a
 * snapshot, sealed. `audit`, `where` and `shards` say so with one voice, and `shards mend` gets into ClickHouse, once, what was
 * acknowledged since.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { createInbox, type NatsConnection } from '@nats-io/nats-core';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { clickhouseClientOptions, resolveOptions, testEnvironment } from '../../lib/config/index.js';
import { ensureLog } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { readShardSetting } from '../../lib/shard-number.js';
import { type ShardSetting, shardsKey } from '../../lib/shard-setting.js';
import { batchSubject, keptStream, settingsBucket, shardStream } from '../../lib/subjects.js';
import { createRandom } from '../../lib/testing/batches.js';
import { type TestClickHouse, withClickHouse } from '../../lib/testing/clickhouse.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { until } from '../../lib/testing/until.js';
import { createClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import { audit } from '../ledger/audit.js';
import { createLedgerStore } from '../ledger/ledger-store.js';
import { mendShard } from '../ledger/shard-mend.js';
import { acceptShard, bucketIfThere, keptText, type LogLook, lookAtLog, shardStatus } from '../ledger/shard-states.js';
import { where } from '../ledger/where.js';
import { storedPayload } from '../testing/payloads.js';
import { startWorkerProcess } from '../testing/worker-process.js';
import { createClickHouseBlockStore } from './block-store.js';
import { readDeadLedger } from './dead-scan.js';

const log = { shards: 1, replicas: 1, maxBytes: 64 * 1024 ** 2 };
const eventsOfBatch = 10;
const stream = shardStream(0);

interface Scene {
  readonly nats: TestNats;
  readonly jsm: JetStreamManager;
  /** Publishes so many batches, `<name>-0` and on, as attempt 1. */
  publish(name: string, batches: number, shard?: number): Promise<void>;
  /** Rows, and event ids among them. */
  stored(): Promise<[number, number]>;
  /** Waits for so many rows. */
  loaded(events: number): Promise<unknown>;
  /** The faults of `sluice audit`, and its difference. */
  audit(): Promise<{ faults: string; difference: number }>;
  /** What `sluice shards` says is wrong: with each shard, and with a mend that was interrupted. */
  shards(): Promise<string>;
  /** State of the only copy of a batch in the log, and why its shard is not loaded. */
  where(id: string): Promise<{ state: string | undefined; stopped: string | undefined }>;
  mend(shard: number): Promise<number>;
  accept(shard: number): Promise<unknown>;
  /** A command as its own process. */
  run(main: 'audit' | 'shards' | 'where', ...args: string[]): Promise<{ code: number; out: string; err: string }>;
}

let endEngine = (): void => {};
let engineEnded: Promise<void> = Promise.resolve();
let engine: Promise<TestClickHouse> | undefined;

function sharedClickHouse(): Promise<TestClickHouse> {
  engine ??= new Promise((resolve, reject) => {
    engineEnded = withClickHouse(async (engine) => {
      resolve(engine);
      await new Promise<void>((end) => {
        endEngine = end;
      });
    });
    engineEnded.catch(reject);
  });
  return engine;
}

test.after(async () => {
  endEngine();
  await engineEnded;
});

let scenes = 0;

async function withScene(use: (scene: Scene) => Promise<void>): Promise<void> {
  const engine = await sharedClickHouse();
  await withNats(async (nats) => {
    const database = `lost_${++scenes}`;
    const addresses = { clickhouseUrl: engine.url, clickhouseDatabase: database };
    const clickhouse = createClickHouse(resolveOptions(clickhouseClientOptions, addresses, {}), silentLogger);
    await ensureLog(nats.nc, log);
    const jsm = await jetstreamManager(nats.nc);
    const js = jetstream(nats.nc);
    const random = createRandom(31);
    const target = eventsTable(database);
    const store = createClickHouseBlockStore(clickhouse, target);
    const ledger = createLedgerStore(clickhouse, target);
    const ofLog = { nc: nats.nc, jsm, store: ledger, progress: () => undefined, logger: silentLogger };
    const inLog = async () => (await lookAtLog(nats.nc, jsm, store)) as LogLook;
    const look = async () => ({ jsm, store, settings: await bucketIfThere(nats.nc) });
    const worker = await startWorkerProcess({ natsUrl: nats.url, ...addresses, blockDelay: '50ms' });
    const stored = async (): Promise<[number, number]> => {
      const [row] = await clickhouse.rows<{ n: string; ids: string }>(
        `SELECT toString(count()) AS n, toString(uniqExact(event_id)) AS ids FROM ${database}.events WHERE tenant != ''`,
      );
      return [Number(row?.n), Number(row?.ids)];
    };
    try {
      await use({
        nats,
        jsm,
        async publish(name, batches, shard = 0) {
          // The server may have been started again. (A flush that begins meanwhile may never end.)
          await until('the log answers', () => isThere(jsm, stream));
          for (let i = 0; i < batches; i++) {
            const payload = storedPayload(random, { tenant: 'acme', batchId: `${name}-${i}`, events: eventsOfBatch });
            await js.publish(batchSubject(shard, 'acme'), payload, { timeout: 10_000 });
          }
        },
        stored,
        async audit() {
          const found = await audit({
            ...ofLog,
            ...(await inLog()),
            dead: await readDeadLedger(ofLog),
            retention: false,
          });
          const faults = found.faults.map(
            ({ shard, lo, hi, difference, message }) => `${shard} ${lo}-${hi} [${difference ?? ''}] ${message}`,
          );
          return { faults: faults.join('\n'), difference: found.difference };
        },
        async shards() {
          const lines: string[] = await keptText(jsm);
          const number = await readShardSetting(nats.nc);
          for (const shard of (await inLog()).shards) {
            const { stopped, closed } = await shardStatus(await look(), shard, number);
            for (const why of [stopped, closed]) if (why !== undefined) lines.push(`${shard}: ${why}`);
          }
          return lines.join('\n');
        },
        async where(id) {
          const found = await where({ ...ofLog, ...(await inLog()), tenants: ['acme'], oneTenant: true }, id);
          assert.is(found.copies.length, 1);
          const [copy] = found.copies;
          return { state: copy?.state, stopped: copy?.stopped };
        },
        async mend(shard) {
          const number = (await readShardSetting(nats.nc)) as ShardSetting;
          const options = { ...ofLog, look: await look(), ledger, number, say: () => undefined };
          return (await mendShard(options, shard)).messages;
        },
        accept: async (shard) => acceptShard(await look(), shard),
        loaded: (events) => until(`${events} rows`, async () => (await stored())[0] >= events),
        async run(main, ...args) {
          const file = programPath(`workers/ledger/${main}-main.ts`);
          const flags = ['--nats-url', nats.url, '--clickhouse-url', engine.url, '--clickhouse-database', database];
          const child = spawn(process.execPath, [...programFlags, file, ...flags, ...args], {
            stdio: ['ignore', 'pipe', 'pipe'],
            env: testEnvironment(),
          });
          let [out, err] = ['', ''];
          child.stdout.on('data', (chunk) => {
            out += String(chunk);
          });
          child.stderr.on('data', (chunk) => {
            err += String(chunk);
          });
          const [code] = await once(child, 'close');
          return { code: code as number, out, err };
        },
      });
    } finally {
      worker.child.kill('SIGKILL');
      await worker.exited;
      await clickhouse.close();
    }
  });
}

const isThere = (jsm: JetStreamManager, name: string): Promise<boolean> =>
  jsm.streams.info(name).then(
    () => true,
    () => false,
  );

test('an older copy of the log put back: audit, where and shards name the shard, and mend loads what came since, once', async () => {
  await withScene(async (scene) => {
    const { nats, jsm, publish, stored, loaded, run } = scene;
    await publish('a', 20);
    await loaded(200);
    await nats.keepCopy();
    await publish('b', 30);
    await loaded(500);
    await nats.rollBack();
    // Acknowledged, and with the sequences of messages that were loaded.
    await publish('c', 20);

    const backwards = await run('audit');
    assert.is(backwards.code, 1, backwards.out + backwards.err);
    assert.match(backwards.out, /FAULT shard 0, .*: the stream went backwards: its last message is 40, .* up to 50/);
    assert.match(backwards.out, /sluice shards mend/);
    assert.match(backwards.out, /FAULT shard 0, messages 21 to 40 \[\+200\]: .* not the ones that were loaded/);
    assert.match(backwards.out, /difference 200: 2 faults\n$/);
    assert.match(await scene.shards(), /^0: the stream went backwards/);
    const whereIs = await run('where', '--tenant', 'acme', 'c-7');
    assert.match(whereIs.out, /not in ClickHouse: the log lost its end.*\n {2}shard 0 is not loaded: the stream went/);
    // Of an event that is nowhere, every way that it can have gone is named.
    assert.match((await run('where', 'gone-1')).out, /the log lost it before it was loaded/);

    // As long as before, and longer.
    await publish('d', 20);
    const replaced = await scene.audit();
    assert.match(replaced.faults, /the stream lost its end and went on/);
    assert.match(replaced.faults, /^0 21-50 \[300\] /m);
    assert.match(await scene.shards(), /^0: the stream lost its end and went on/);
    const ahead = await scene.where('d-19');
    assert.is(ahead.state, 'in flight');
    assert.match(ahead.stopped ?? '', /lost its end/);

    const mended = await run('shards', 'mend', '0');
    assert.is(mended.code, 0, mended.err);
    assert.match(mended.err, /40 messages were published again/);
    await loaded(900);
    nats.process().kill('SIGTERM');
    await nats.restart();
    await publish('e', 1);
    await loaded(910);
    assert.equal(await stored(), [910, 910]);
    assert.equal(await scene.audit(), { faults: '', difference: 0 });
    assert.is(await scene.shards(), '');
    assert.not.ok(await isThere(jsm, keptStream(0)));
    assert.is((await jsm.streams.info(stream)).config.max_bytes, log.maxBytes);
    assert.match(await scene.mend(0).then(String, String), /Shard 0 needs no mending/);
  });
});

test('a stream that was removed and made again is a fault until it is accepted or mended; a mend that was interrupted is finished', async () => {
  await withScene(async (scene) => {
    const { nats, jsm, publish, stored, loaded } = scene;
    await publish('a', 5);
    await loaded(50);
    await jsm.streams.delete(stream);
    await ensureLog(nats.nc, log);
    await publish('b', 5);
    assert.match((await scene.audit()).faults, /^0 1-5 \[\] the stream was made again: .*sluice shards accept/);
    const waits = await scene.where('b-1');
    assert.is(waits.state, 'in flight');
    assert.match(waits.stopped ?? '', /the stream was made again/);
    await scene.accept(0);
    await loaded(100);
    assert.equal(await scene.audit(), { faults: '', difference: 0 });

    // Messages that are stored already, in a stream of another making, beside new ones.
    const random = createRandom(5);
    const js = jetstream(nats.nc);
    const copies = [0, 1, 2].map((i) => storedPayload(random, { tenant: 'acme', batchId: `x-${i}`, events: 10 }));
    for (const copy of copies) await js.publish(batchSubject(0, 'acme'), copy);
    await loaded(130);
    await jsm.streams.delete(stream);
    await ensureLog(nats.nc, log);
    for (const copy of copies) await js.publish(batchSubject(0, 'acme'), copy);
    await publish('c', 2);
    // As if the mend had been killed after it had set the stream aside and kept a part.
    await jsm.streams.update(stream, { subjects: ['sluice.parked.0'] });
    await jsm.streams.add({ name: keptStream(0), subjects: ['kept.0.>'], allow_direct: true });
    await js.publish('kept.0.acme', copies[0] as Uint8Array);
    const interrupted = await scene.shards();
    assert.match(interrupted, /KEPT_0 holds 1 messages of a mend that was interrupted: `sluice shards mend 0`/);
    assert.match(interrupted, /^0: The stream EV_0 is set aside/m);
    assert.match((await scene.audit()).faults, /^undefined .* the stream KEPT_0 holds 1 messages/m);
    assert.is(await scene.mend(0), 6);
    await loaded(150);
    await publish('d', 1);
    await loaded(160);
    assert.equal(await stored(), [160, 160], 'what was stored is left out');
    assert.equal(await scene.audit(), { faults: '', difference: 0 });
  });
});

test('a stream that was restored from an older snapshot is seen and mended', async () => {
  await withScene(async (scene) => {
    const { nats, jsm, publish, stored, loaded } = scene;
    await publish('a', 6);
    await loaded(60);
    const snapshot = await snapshotOf(nats.nc, stream);
    await publish('b', 6);
    await loaded(120);
    await jsm.streams.delete(stream);
    await restore(nats.nc, stream, snapshot);
    await publish('c', 3);
    assert.match((await scene.audit()).faults, /the stream (went backwards|was made again)/);
    assert.match(await scene.shards(), /^0: the stream/);
    await scene.mend(0);
    await loaded(150);
    assert.equal(await stored(), [150, 150]);
    assert.equal(await scene.audit(), { faults: '', difference: 0 });
  });
});

test('loaded messages may be purged; an edited number is a fault, and loading goes on; a stream beyond the number of shards, and a sealed one, are shown', async () => {
  await withScene(async (scene) => {
    const { nats, jsm, publish, loaded, run } = scene;
    await publish('a', 5);
    await loaded(50);
    await jsm.streams.purge(stream);
    assert.equal(await scene.audit(), { faults: '', difference: 0 });

    const settings = await new Kvm(nats.nc).open(settingsBucket);
    await settings.put(shardsKey, '3');
    assert.match((await scene.audit()).faults, /^undefined .* The number of shards was edited by hand/);
    await publish('c', 1);
    await loaded(60);
    await jsm.streams.delete(`KV_${settingsBucket}`);
    assert.match((await scene.audit()).faults, /^undefined .* The number of shards is lost .*EV_0/);
    const lost = await run('shards');
    assert.is(lost.code, 2, lost.err);
    assert.match(lost.out, /\n0 +EV_0 [^\n]*\nThe number of shards is lost .*`sluice shards rebuild`/);
    const rebuilt = await run('shards', 'rebuild');
    assert.is(rebuilt.code, 0, rebuilt.err);
    assert.match(rebuilt.err, /There are 1 shards: written again from the streams/);

    await jsm.streams.add({ name: shardStream(1), subjects: ['ev.1.>'], discard: 'new', allow_direct: true });
    await publish('b', 5, 1);
    assert.match((await scene.audit()).faults, /^1 1-5 \[\] there are 1 shards .* no worker loads this stream/);
    const shown = await run('shards');
    assert.is(shown.code, 2, shown.err);
    assert.match(shown.out, /\n1 +EV_1 .* 5 +stopped\nshard 1 is not loaded: there are 1 shards/);
    assert.is(await scene.mend(1), 5);
    await loaded(110);
    assert.equal(await scene.audit(), { faults: '', difference: 0 });
    assert.is(await scene.shards(), '');

    await jsm.streams.update(stream, { sealed: true } as never);
    assert.match(await scene.shards(), /^0: The stream EV_0 is sealed .*nats stream rm EV_0/);
    assert.match(await ensureLog(nats.nc, log).then(() => 'no error', String), /EV_0 is sealed/);
  });
});

/** What `nats stream backup` keeps. */
interface Snapshot {
  readonly config: unknown;
  readonly state: unknown;
  readonly chunks: readonly Uint8Array[];
}

async function snapshotOf(nc: NatsConnection, name: string): Promise<Snapshot> {
  const inbox = createInbox();
  const chunks: Uint8Array[] = [];
  const delivered = nc.subscribe(inbox);
  const all = (async () => {
    for await (const message of delivered) {
      if (message.data.length === 0) break;
      chunks.push(message.data.slice());
      message.respond();
    }
  })();
  const question = JSON.stringify({ deliver_subject: inbox, no_consumers: true });
  const answer = await nc.request(`$JS.API.STREAM.SNAPSHOT.${name}`, question, { timeout: 10_000 });
  await all;
  const { config, state } = answer.json<{ config: unknown; state: unknown }>();
  return { config, state, chunks };
}

async function restore(nc: NatsConnection, name: string, { config, state, chunks }: Snapshot): Promise<void> {
  const begun = await nc.request(`$JS.API.STREAM.RESTORE.${name}`, JSON.stringify({ config, state }), {
    timeout: 10_000,
  });
  const { deliver_subject: to } = begun.json<{ deliver_subject: string }>();
  for (const chunk of chunks) await nc.request(to, chunk, { timeout: 10_000 });
  const ended = await nc.request(to, '', { timeout: 10_000 });
  assert.is(ended.json<{ error?: unknown }>().error, undefined);
}

test.run();
