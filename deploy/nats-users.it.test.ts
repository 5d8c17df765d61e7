/**
 * The users of deploy/nats.conf on the real nats-server. All parts run with the rights that they have in production: the gateway, two
 * workers and every command, each a process of its own, and ClickHouse with the grants of its user.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { commandFile } from '../cli/roles.js';
import { testEnvironment } from '../lib/config/index.js';
import { programFlags, programPath } from '../lib/testing/program.js';
import { until } from '../lib/testing/until.js';
import { type DeployedNats, type DeployedUser, withDeployedNats } from './testing/deployed-nats.js';

const small = ['--shards', '2', '--shard-max-bytes', '64MiB', '--dead-letter-bytes', '16MiB'];
const readyMs = 20_000;
const root = fileURLToPath(new URL('..', import.meta.url));

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Every part of an installation. */
class Installation {
  readonly #children: ChildProcess[] = [];
  clickhouseUrl = '';
  gatewayUrl = '';
  output = '';

  constructor(
    readonly nats: DeployedNats,
    readonly folder: string,
  ) {}

  /** A process that stays; resolves with its first message. */
  async start(words: readonly string[], flags: readonly string[]): Promise<Record<string, unknown>> {
    const child = fork(programPath(words[0] as string), [...words.slice(1), ...flags], {
      cwd: root,
      execArgv: [...programFlags],
      env: testEnvironment(),
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#children.push(child);
    child.stderr?.on('data', (chunk) => {
      this.output += String(chunk);
    });
    const [message] = (await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(([code]) => Promise.reject(new Error(`${words[0]} ended with ${code}: ${this.output}`))),
      new Promise((_, reject) => {
        setTimeout(() => reject(new Error(`${words[0]} is not ready: ${this.output.slice(-3_000)}`)), readyMs).unref();
      }),
    ])) as [Record<string, unknown>];
    return message;
  }

  async startAll(): Promise<void> {
    const { port } = await this.start(['deploy/testing/granted-clickhouse.ts', 'sluice', this.folder], []);
    this.clickhouseUrl = `http://127.0.0.1:${port}`;
    const quick = ['--metrics-port', '0'];
    const clickhouse = ['--clickhouse-url', this.clickhouseUrl, '--block-delay', '50ms', '--replay-window', '0'];
    const workers = [1, 2].map(() =>
      this.start(['workers/main.ts'], ['--nats-url', this.nats.url('worker'), ...quick, ...clickhouse]),
    );
    const gateway = await this.start(
      ['gateway/main.ts'],
      ['--nats-url', this.nats.url('gateway'), '--port', '0', ...quick],
    );
    this.gatewayUrl = `http://127.0.0.1:${gateway.port}`;
    await Promise.all(workers);
  }

  /** A command of an operator. */
  async run(...words: string[]): Promise<Ended> {
    const [command = ''] = words;
    const flags = ['--nats-url', this.nats.url('admin')];
    if (!['setup', 'tenant'].includes(command)) flags.push('--clickhouse-url', this.clickhouseUrl);
    const at = words.findIndex((word) => word.startsWith('--'));
    const names = words.slice(1, at < 0 ? words.length : at);
    const given = at < 0 ? [] : words.slice(at);
    // The commands that are processes of their own, without the one that starts them.
    const main = ['audit', 'where', 'shards', 'erase'].includes(command)
      ? [...programFlags, programPath(`workers/ledger/${command}-main.ts`), ...flags, ...given, ...names]
      : [commandFile, command, ...names, ...flags, ...given];
    const child = spawn(process.execPath, main, { cwd: root, env: testEnvironment() });
    let [out, err] = ['', ''];
    child.stdout.on('data', (chunk) => {
      out += String(chunk);
    });
    child.stderr.on('data', (chunk) => {
      err += String(chunk);
    });
    const [code] = (await once(child, 'close')) as [number];
    return { code, out, err };
  }

  /** The same; it must end with 0. */
  async must(...words: string[]): Promise<string> {
    const { code, out, err } = await this.run(...words);
    assert.is(code, 0, `sluice ${words.join(' ')}: ${out}${err}`);
    return out;
  }

  post(path: string, key: string, body: unknown): Promise<Response> {
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
    return fetch(`${this.gatewayUrl}${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  }

  async publish(key: string, batchId: string): Promise<void> {
    const events = [1, 2, 3].map((n) => ({
      eventId: `${batchId}-${n}`,
      type: 'EVENT_TYPE_CLICK',
      userId: 'u-1',
      occurredAt: new Date().toISOString(),
    }));
    await until(
      `${batchId} is accepted`,
      async () => (await this.post('/v1/events/batch', key, { batchId, events })).status === 202,
    );
  }

  async stored(): Promise<number> {
    const body = "SELECT count() FROM sluice.events WHERE tenant != ''";
    return Number(await (await fetch(this.clickhouseUrl, { method: 'POST', body })).text());
  }

  async end(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL');
    await Promise.all(this.#children.map((child) => child.exitCode ?? child.signalCode ?? once(child, 'exit')));
  }
}

async function withInstallation(use: (all: Installation) => Promise<void>): Promise<void> {
  await withDeployedNats(async (nats) => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-users-'));
    const all = new Installation(nats, folder);
    try {
      await use(all);
    } finally {
      await all.end();
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    }
  });
}

const connectAs = ({ address, passwords }: DeployedNats, user: DeployedUser): Promise<NatsConnection> =>
  connect({ servers: address, user, pass: passwords[user], inboxPrefix: `_INBOX_${user}`, maxReconnectAttempts: 0 });

test('every part does its work with its own user, and asks for nothing that it is refused', async () => {
  await withInstallation(async (all) => {
    await all.must('setup', ...small);
    await all.startAll();
    const key = (await all.must('tenant', 'add', 'acme')).trim();
    await all.publish(key, 'first');
    await until('stored', async () => (await all.stored()) === 3);

    const status = await all.post('/sluice.ingest.v1.IngestService/GetBatchStatus', key, { batchId: 'first' });
    assert.match(await status.text(), /BATCH_STATE_STORED/);
    await all.must('audit');
    assert.match(await all.must('where', 'first-1'), /stored/);

    // A message that no gateway wrote becomes a dead letter.
    const admin = await connectAs(all.nats, 'admin');
    const jsm = await jetstreamManager(admin);
    await jetstream(admin).publish('ev.0.acme', 'no batch');
    await until('a dead letter', async () => (await jsm.streams.info('DEAD')).state.messages === 1);
    await all.must('shards');

    await all.must('shards', '--set', '3');
    // Enough for something in every shard.
    for (let i = 0; i < 12; i++) await all.publish(key, `second-${i}`);
    await until('stored', async () => (await all.stored()) === 39);

    // A stream is removed, made again, and taken up.
    await jsm.streams.delete('EV_1');
    await all.must('setup', ...small);
    assert.match((await all.run('shards')).out, /`sluice shards mend 1`/);
    await all.must('shards', 'mend', '1');
    await all.publish(key, 'third');
    await until('stored', async () => (await all.stored()) === 42);

    await all.must('erase', '--tenant', 'acme', '--user-id', 'u-1');
    assert.is(await all.stored(), 0);
    const [keyId = ''] = /[0-9a-f]{12}/.exec(key) ?? [];
    await all.must('tenant', 'revoke', keyId);
    await until('the key is refused', async () => (await all.post('/v1/events', key, {})).status === 401);
    await all.must('tenant', 'list');
    await admin.close();
    assert.equal(all.nats.refusals(), []);

    // From nothing: the gateway waits for an operator, says so, and goes on.
    await all.nats.restart(true);
    await until('told', async () => /run `sluice setup`/.test(await (await fetch(`${all.gatewayUrl}/readyz`)).text()));
    await all.must('setup', ...small);
    const again = (await all.must('tenant', 'add', 'acme')).trim();
    await all.publish(again, 'again');
    for (const shard of ['0', '1']) await all.run('shards', 'accept', shard);
    await until('stored', async () => (await all.stored()) === 3);
    const asked = new Set(all.nats.refusals());
    assert.equal([...asked], ['gateway: Publish Violation $JS.API.STREAM.CREATE.KV_sluice_settings']);
  });
});

/** What becomes of a request: the answer's text, or that nats-server refuses the subject. */
async function ask(nc: NatsConnection, subject: string, body = ''): Promise<string> {
  try {
    return (await nc.request(subject, body, { timeout: 2_000 })).string();
  } catch (error) {
    return String((error as Error).cause ?? error);
  }
}

test('no user may do what only another one needs', async () => {
  await withDeployedNats(async (nats) => {
    const admin = await connectAs(nats, 'admin');
    const jsm = await jetstreamManager(admin);
    for (const [name, subjects] of [
      ['EV_0', 'ev.0.>'],
      ['DEAD', 'dead.>'],
      ['KV_sluice_settings', '$KV.sluice_settings.>'],
      ['KV_sluice_tenants', '$KV.sluice_tenants.>'],
    ] as const) {
      await jsm.streams.add({ name, subjects: [subjects], allow_direct: true });
    }
    await jsm.consumers.add('EV_0', { durable_name: 'reader', ack_policy: 'explicit' });
    await jsm.consumers.add('EV_0', { durable_name: 'other', ack_policy: 'explicit' });
    const stream = (verb: string, name: string): string => `$JS.API.STREAM.${verb}.${name}`;
    const makesKeys = '$KV.sluice_tenants.0123456789ab';
    const push = JSON.stringify({ stream_name: 'EV_0', config: { durable_name: 'x', deliver_subject: 'dead.0.x' } });
    const refused: Readonly<Record<'gateway' | 'worker' | 'reader', readonly string[]>> = {
      gateway: [
        ...['DELETE', 'PURGE', 'UPDATE', 'CREATE', 'SNAPSHOT', 'MSG.DELETE', 'MSG.GET'].map((verb) =>
          stream(verb, 'EV_0'),
        ),
        ...[stream('MSG.GET', 'KV_sluice_tenants'), '$JS.API.CONSUMER.CREATE.EV_0.x', '$JS.API.CONSUMER.LIST.EV_0'],
        ...[makesKeys, '$KV.sluice_settings.shards', 'dead.0.acme', 'sluice.committed.0', '$JS.API.STREAM.CREATE.MINE'],
        ...['_INBOX_worker.x', '_INBOX_admin.x', 'sluice.shards.waits'],
      ],
      worker: [
        ...['DELETE', 'UPDATE', 'CREATE', 'SNAPSHOT', 'MSG.DELETE'].map((verb) => stream(verb, 'EV_0')),
        ...[stream('PURGE', 'DEAD'), stream('PURGE', 'KV_sluice_tenants'), stream('PURGE', 'KV_sluice_settings')],
        ...[stream('MSG.GET', 'KV_sluice_tenants'), '$JS.API.CONSUMER.CREATE.KV_sluice_tenants.x'],
        '$JS.API.CONSUMER.CREATE.KV_sluice_tenants',
        ...['ev.0.acme', makesKeys, '$KV.sluice_settings.shards', '_INBOX_gateway.x', '_INBOX_admin.x'],
      ],
      reader: [
        ...['DELETE', 'PURGE', 'UPDATE', 'CREATE', 'MSG.GET', 'INFO'].map((verb) => stream(verb, 'EV_0')),
        ...['$JS.API.CONSUMER.CREATE.EV_0.x', '$JS.API.CONSUMER.DURABLE.CREATE.EV_0.x', '$JS.API.CONSUMER.LIST.EV_0'],
        ...['$JS.API.CONSUMER.MSG.NEXT.EV_0.other', '$JS.API.CONSUMER.DELETE.EV_0.reader', '$JS.API.STREAM.LIST'],
        ...['$JS.API.DIRECT.GET.KV_sluice_tenants', 'ev.0.acme', 'dead.0.acme', makesKeys, 'sluice.batch-status'],
        '_INBOX_gateway.x',
      ],
    };
    for (const user of ['gateway', 'worker', 'reader'] as const) {
      const nc = await connectAs(nats, user);
      for (const subject of refused[user]) {
        const body = subject.includes('CONSUMER') ? push : '';
        assert.match(await ask(nc, subject, body), /Permissions Violation for Publish/i, `${user} ${subject}`);
      }
      // No user listens to the answers of others, nor to what passes by.
      const others = ['gateway', 'worker', 'admin', 'reader'].filter((other) => other !== user);
      for (const subject of ['ev.>', '>', '_INBOX.>', '$KV.>', ...others.map((other) => `_INBOX_${other}.>`)]) {
        const failure = await new Promise<Error | null>((resolve) => {
          nc.subscribe(subject, { callback: (error) => resolve(error) });
          void nc.flush().then(() => setTimeout(() => resolve(null), 200));
        });
        assert.match(String(failure), /Permissions Violation for Subscription/i, `${user} ${subject}`);
      }
      await nc.close();
    }

    // What a reader may: take what its consumer has, and say that it has it.
    await jetstream(admin).publish('ev.0.acme', 'a batch');
    const reader = await connectAs(nats, 'reader');
    const consumer = await jetstream(reader, { checkAPI: false } as never).consumers.get('EV_0', 'reader');
    const message = await consumer.next({ expires: 2_000 });
    assert.is(message?.string(), 'a batch');
    assert.is(await message?.ackAck(), true);
    assert.is((await jsm.streams.info('EV_0')).state.messages, 1);
    await reader.close();
    await admin.close();
  });
});

test.run();
