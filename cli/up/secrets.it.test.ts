/**
 * `npm start` on a machine with other users: what they, and programs without the secrets, get of it.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../../lib/testing/until.js';
import {
  command,
  freePorts,
  processesNaming,
  sluice,
  startUp,
  type UpProcess,
  withFolder,
} from '../testing/running-stack.js';

type Ports = Awaited<ReturnType<typeof freePorts>>;

const isRoot = process.getuid?.() === 0;
const modeOf = (file: string): string => (statSync(file).mode & 0o777).toString(8);
const secretFiles = ['nats-credentials', 'clickhouse-password', 'demo-key'] as const;
const secretsOf = (data: string): string[] =>
  secretFiles.map((name) =>
    readFileSync(join(data, name), 'utf8')
      .trim()
      .replace(/^sluice:/, ''),
  );

async function end(up: UpProcess): Promise<void> {
  up.child.kill('SIGINT');
  assert.is((await up.ended).code, 0, up.err());
}

/** What nats-server says to a connection that sends this, until it says no more for half a second. */
function natsSays(port: number, sent: string): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect(port, '127.0.0.1');
    socket.setTimeout(500, () => socket.destroy());
    socket.on('data', (chunk) => (text += String(chunk)));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(text));
    socket.write(sent);
  });
}

function statusOf(port: number, path: string, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, headers: { host } }, (answer) => {
      answer.resume();
      resolve(answer.statusCode ?? 0);
    });
    sent.on('error', reject);
    sent.end();
  });
}

/** Every file and folder below, also in folders of folders. */
function* below(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    yield path;
    if (entry.isDirectory()) yield* below(path);
  }
}

/** All that the stack wrote is this user's alone. */
function assertClosed(data: string): void {
  assert.is(modeOf(data), '700');
  for (const name of [...secretFiles, 'up.json', 'nats/nats.conf']) assert.is(modeOf(join(data, name)), '600', name);
  for (const path of below(data)) {
    if (path.includes('demo-key') || path.endsWith('/logs')) continue;
    assert.is(Number.parseInt(modeOf(path), 8) & 0o077, 0, path);
  }
}

/** Another user of the machine gets neither the files nor the environment of processes. */
function assertNothingForUsers(data: string, pids: readonly number[]): void {
  if (!isRoot) {
    process.stdout.write('skipped the second user: this is not root\n');
    return;
  }
  const asNobody = (line: string) => spawnSync('su', ['nobody', '-s', '/bin/sh', '-c', line], { encoding: 'utf8' });
  assert.is(asNobody('id -un').stdout, 'nobody\n');
  for (const name of [...secretFiles, 'up.json', 'nats/nats.conf', 'clickhouse/rights/during.xml']) {
    const read = asNobody(`cat '${join(data, name)}'`);
    assert.is(read.stdout, '', name);
    assert.match(read.stderr, /Permission denied/);
  }
  for (const pid of pids) {
    assert.is(asNobody(`cat /proc/${pid}/environ`).stdout, '');
  }
}

/** A program without the secrets gets nothing from ClickHouse and NATS, and one that has them does. */
async function assertNothingForPrograms(data: string, natsPort: number, clickhouse: string): Promise<void> {
  const [password = ''] = secretsOf(data);
  const statement = encodeURIComponent(`SELECT * FROM file('${join(data, 'demo-key')}', 'LineAsString', 'l String')`);
  const stranger = await fetch(`${clickhouse}/?query=${statement}`);
  assert.is(stranger.status, 403);
  assert.not.match(await stranger.text(), /slk_/);
  const hello = 'CONNECT {"verbose":true}\r\nPUB ev.0.acme 1\r\nx\r\nPING\r\n';
  assert.match(await natsSays(natsPort, hello), /-ERR 'Authorization Violation'/);
  assert.match(
    await natsSays(natsPort, hello.replace('}', ',"user":"sluice","pass":"wrong"}')),
    /-ERR 'Authorization Violation'/,
  );
  assert.match(
    await natsSays(natsPort, hello.replace('}', `,"user":"sluice","pass":"${password}"}`)),
    /\+OK[\s\S]*PONG/,
  );
}

/** A page in this user's browser, which asks with its own host name, gets nothing. */
async function assertNothingForPages(data: string, ports: Ports): Promise<void> {
  for (const port of [ports.gatewayMetricsPort, ports.workerMetricsPort, ports.clickhouseMetricsPort]) {
    assert.is(await statusOf(port, '/metrics', 'evil.example'), 403);
    assert.is(await statusOf(port, '/metrics', `localhost:${port}`), 200);
  }
  assert.is(await statusOf(ports.clickhousePort, '/ping', 'evil.example'), 403);
  assert.not.match(readFileSync(join(data, 'nats/nats.conf'), 'utf8'), /^http:/m);
}

/** The commands need no typing, and show nothing. */
async function assertCommandsWork(data: string, up: UpProcess): Promise<void> {
  for (const args of [
    ['query', 'SELECT 1', '--format', 'CSV'],
    ['tenant', 'list'],
    ['audit'],
    ['shards'],
    ['where', 'nothing-of-that-name'],
  ]) {
    const answer = await sluice([...args, '--data', data]);
    assert.is(answer.code, args[0] === 'where' ? answer.code : 0, `${args.join(' ')}: ${answer.err}`);
    assert.not.match(answer.out + answer.err, /refuses|Authentication|Violation/);
  }
  for (const line of up
    .out()
    .split('\n')
    .filter((line) => /^ {2}(?:printf|NATS_URL)/.test(line))) {
    if (line.includes('NATS_URL') && spawnSync('nats', ['--version']).status !== 0) continue;
    const pasted = await command('bash', ['-c', line]).ended;
    assert.is(pasted.code, 0, pasted.err);
    assert.match(pasted.out, /^\d+\n$|EV_|stream/i);
  }
}

/** No secret is among the words of processes, or in what they write. */
async function assertHidden(data: string, up: UpProcess): Promise<void> {
  const [password = '', clickhouse = '', key = ''] = secretsOf(data);
  const secrets = [password, clickhouse];
  for (const words of processesNaming(data))
    assert.not.ok(
      [...secrets, key].some((one) => words.includes(one)),
      words,
    );
  const logs = readdirSync(join(data, 'logs')).map((name) => readFileSync(join(data, 'logs', name), 'utf8'));
  const metrics = await Promise.all(Object.values(up.stack().metrics).map(async (url) => (await fetch(url)).text()));
  for (const text of [...logs, ...metrics, up.err(), readFileSync(join(data, 'up.json'), 'utf8')]) {
    assert.not.ok([...secrets, key].some((one) => text.includes(one)));
  }
  assert.not.ok(secrets.some((one) => up.out().includes(one)));
}

test('an old data folder, open to all, is closed and gets secrets; strangers and pages get nothing; nothing shows them', async () => {
  await withFolder(async (folder) => {
    const data = join(folder, 'data');
    // As an older version left it.
    mkdirSync(join(data, 'logs'), { recursive: true });
    writeFileSync(join(data, 'demo-key'), 'slk_0123456789ab_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n');
    for (const open of [folder, data]) chmodSync(open, 0o755);
    const ports = await freePorts();
    const up = await startUp(data, { ...ports, natsMonitorPort: 0 }, []);
    const [password, clickhouse, key] = secretsOf(data);

    assertClosed(data);
    assertNothingForUsers(data, Object.values(up.stack().pids));
    await assertNothingForPrograms(data, ports.natsPort, up.stack().clickhouse);
    await assertNothingForPages(data, ports);
    await assertCommandsWork(data, up);
    await assertHidden(data, up);
    await end(up);

    // Kept by a second start; made again when removed.
    rmSync(join(data, 'clickhouse-password'));
    chmodSync(join(data, 'nats-credentials'), 0o644);
    const again = await startUp(data, ports);
    const [samePassword, newClickhouse, sameKey] = secretsOf(data);
    assert.equal([samePassword, sameKey], [password, key]);
    assert.is.not(newClickhouse, clickhouse);
    assert.is(modeOf(join(data, 'nats-credentials')), '600');
    // It was asked for this time.
    assert.is(await statusOf(ports.natsMonitorPort, '/varz', 'localhost'), 200);
    await end(again);
  });
});

test('files that are not what they should be are refused with what to do', async () => {
  await withFolder(async (folder) => {
    const ports = await freePorts();
    const flags = (data: string) => ['up', '--data', data, '--nats-port', String(ports.natsPort)];
    const others = [
      '--port',
      '--gateway-metrics-port',
      '--worker-metrics-port',
      '--clickhouse-port',
      '--clickhouse-metrics-port',
    ];
    const free = Object.values(ports);
    const all = (data: string) => [...flags(data), ...others.flatMap((flag, i) => [flag, String(free[i])])];

    const linked = join(folder, 'linked');
    mkdirSync(join(linked, 'nats'), { recursive: true });
    const target = join(folder, 'target');
    symlinkSync(target, join(linked, 'nats-credentials'));
    const answer = await sluice(all(linked));
    assert.is(answer.code, 1);
    assert.match(answer.err, /nats-credentials is not a plain file of this user: remove it/);
    assert.not.ok(existsSync(target));

    const edited = join(folder, 'edited');
    mkdirSync(join(edited, 'nats'), { recursive: true });
    writeFileSync(join(edited, 'nats-credentials'), 'no-colon\n');
    assert.match((await sluice(all(edited))).err, /nats-credentials does not hold a line `user:password`: remove it/);

    if (!isRoot) {
      process.stdout.write("skipped another user's folder: this is not root\n");
      return;
    }
    const theirs = join(folder, 'theirs');
    mkdirSync(join(theirs, 'nats'), { recursive: true });
    chownSync(theirs, 65534, 65534);
    const refused = await sluice(all(theirs));
    assert.is(refused.code, 1);
    assert.match(refused.err, /theirs belongs to another user \(uid 65534, and this is 0\).*give a folder of your own/);
  });
});

test('the umask of the user who starts it opens nothing and closes nothing', async () => {
  await withFolder(async (folder) => {
    for (const umask of ['0000', '0777']) {
      const data = join(folder, umask);
      const ports = await freePorts();
      const flags = Object.entries(ports)
        .filter(([name]) => name !== 'natsMonitorPort')
        .map(([name, port]) => `--${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)} ${port}`);
      const line = `umask ${umask}; exec node cli/sluice.mjs up --data '${data}' ${flags.join(' ')}`;
      const running = command('bash', ['-c', line]);
      await until('ready', () => running.out().includes('Ctrl-C ends everything'), 60_000);
      assert.is(modeOf(data), '700');
      for (const name of [...secretFiles, 'up.json']) assert.is(modeOf(join(data, name)), '600', name);
      running.child.kill('SIGINT');
      assert.is((await running.ended).code, 0);
    }
  });
});

test.run();
