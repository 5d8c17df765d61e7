/** `sluice up` as a user meets it: started, used, hurt, ended, refused. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { shellWord } from '../../lib/terminal.js';
import { root } from '../../lib/testing/root.js';
import { until } from '../../lib/testing/until.js';
import { commandFile } from '../roles.js';
import { isAlive } from '../stack-file.js';
import {
  type Answer,
  command,
  flagsOf,
  freePorts,
  processesNaming,
  sluice,
  startUp,
  type UpProcess,
  withFolder,
} from '../testing/running-stack.js';

const sluiceCommand = `node ${shellWord(commandFile)}`;

/** A command of what was printed: from the word it begins with to the end of its last line. */
function printed(up: UpProcess, start: string): string {
  const lines = up.out().split('\n');
  const from = lines.findIndex((line) => line.trimStart().startsWith(start));
  if (from < 0) throw new Error(`no line begins with ${start}:\n${up.out()}`);
  let to = from;
  while (lines[to]?.endsWith('\\') === true) to++;
  return lines.slice(from, to + 1).join('\n');
}

/** The first command of README.md that begins so, on this stack in place of the one that README starts. */
function ofReadme(start: string, up: UpProcess): string {
  const text = readFileSync(join(root, 'README.md'), 'utf8');
  const at = text.indexOf(`\n${start} `) + 1;
  const [found = ''] = text.slice(at).split(/(?<!\\)\n/);
  if (at === 0) throw new Error(`README.md has no command ${start}`);
  return found
    .replaceAll('127.0.0.1:7070', `127.0.0.1:${up.ports.port}`)
    .replaceAll('127.0.0.1:8123', `127.0.0.1:${up.ports.clickhousePort}`)
    .replace(/\$\(cat sluice-data\/([a-z-]+)\)/g, (_, name: string) => `$(cat ${shellWord(join(up.data, name))})`)
    .replace(/^npx sluice (\S+)/, (_, name: string) => `${sluiceCommand} ${name} --data ${shellWord(up.data)}`);
}

/** README.md's way to the first event. */
async function readmeIsTrue(up: UpProcess): Promise<void> {
  const sent = await paste(ofReadme('curl', up));
  assert.is(sent.code, 0, sent.err);
  assert.is(JSON.parse(sent.out).accepted, 1);
  await until('readme-1 is in ClickHouse', async () => (await countOf(up, 'readme-1')) === 1, 20_000);
  for (const [start, shows] of [
    ['npx sluice query', /readme-1/],
    ['npx sluice where', /stored: 1 row in block/],
    ['printf', /^\d+\n$/],
  ] as const) {
    const answer = await paste(ofReadme(start, up));
    assert.is(answer.code, 0, `${start}: ${answer.err}`);
    assert.match(answer.out, shows, start);
  }
  if (!(await has('grpcurl'))) return;
  const called = await paste(ofReadme('grpcurl', up));
  assert.is(called.code, 0, called.err);
}

const paste = (line: string): Promise<Answer> => command('bash', ['-c', line]).ended;
const has = (program: string): Promise<boolean> =>
  command('bash', ['-c', `command -v ${program}`]).ended.then(({ code }) => code === 0);

async function countOf(up: UpProcess, eventId: string): Promise<number> {
  const statement = `SELECT count() FROM sluice.events WHERE event_id = '${eventId}' FORMAT TSV`;
  const headers = { 'x-clickhouse-key': readFileSync(join(up.data, 'clickhouse-password'), 'utf8').trim() };
  const url = `${up.stack().clickhouse}/?query=${encodeURIComponent(statement)}`;
  const answer = await fetch(url, { headers }).catch(() => undefined);
  return answer?.ok === true ? Number(await answer.text()) : -1;
}

/** Whether the gateway took it. */
async function send(up: UpProcess, key: string, eventId: string): Promise<boolean> {
  const answer = await fetch(`http://127.0.0.1:${up.ports.port}/v1/events`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ eventId, type: 'EVENT_TYPE_PAGE', occurredAt: new Date().toISOString() }),
  }).catch(() => undefined);
  await answer?.arrayBuffer().catch(() => undefined);
  return answer?.status === 202;
}

/** One that has ended may stay in the table of processes, without a command line, until somebody asks for its exit code. */
const runs = (pid: number): boolean => isAlive(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8') !== '';
const keyOf = (up: UpProcess): string => readFileSync(join(up.data, 'demo-key'), 'utf8').trim();
const nothingLeft = (data: string): void => assert.equal(processesNaming(data), []);

/** What the commands make of a reader that goes away, of odd statements, and of text that a terminal obeys. */
async function commandsBehave(data: string, ports: { clickhousePort: number }): Promise<void> {
  const at = `--data ${shellWord(data)}`;
  const sluiceIn = (line: string) => paste(`set -o pipefail; ${sluiceCommand} ${line}`);
  const cut = await sluiceIn(`query ${at} "SELECT number FROM numbers(3000000)" --format CSV | head -1`);
  assert.equal(cut, { code: 0, out: '0\n', err: '' });
  const odd = {
    'SELECT 1 AS a FORMAT CSV SETTINGS max_threads = 1': '1\n',
    'SELECT 1 AS a SETTINGS max_threads = 1 FORMAT CSV;;': '1\n',
    "SELECT ' FORMAT CSV ' AS a ; ; ": '" FORMAT CSV "\n',
    'SELECT 2 AS a -- of two': '2\n',
  };
  for (const [statement, wanted] of Object.entries(odd)) {
    const answer = await sluiceIn(`query ${at} ${shellWord(statement)} --format CSV`);
    assert.equal(answer, { code: 0, out: wanted, err: '' }, statement);
  }
  for (const statement of ['', ' ;; ']) {
    const { code, err } = await sluiceIn(`query ${at} ${shellWord(statement)}`);
    assert.is(code, 1);
    assert.match(err, /^The statement is empty/);
  }
  assert.ok(ports.clickhousePort > 0);
  const esc = '\u001b';
  const text = `query ${at} ${shellWord(`SELECT char(27) || '[2J' FORMAT TSVRaw`)}`;
  const where = `where ${at} ${shellWord(`${esc}[2J`)}`;
  assert.is((await sluiceIn(text)).out, `${esc}[2J\n`);
  for (const line of [text, where]) {
    const { out } = await paste(`script -qec ${shellWord(`${sluiceCommand} ${line}`)} /dev/null`);
    // What stays is what moves over the line that tells how far it is.
    const shown = out.replaceAll(`\r${esc}[K`, '');
    assert.not(shown.includes(esc), line);
    assert.match(shown, /\\x1b\[2J/, line);
  }
  const note = await sluiceIn(`tenant add ${at} acme --note ${shellWord(`${esc}[2J`)}`);
  assert.is(note.code, 1);
  assert.match(note.err, /^The note has control characters/);
}

test('the stack gets ready, the lines that it prints and those of README work when pasted, Ctrl-C leaves nothing, and a second start keeps all', async () => {
  await withFolder(async (folder) => {
    const data = join(folder, "it's $HOME");
    const ports = await freePorts();
    const began = performance.now();
    const up = await startUp(data, ports);
    assert.ok(performance.now() - began < 30_000);
    const key = keyOf(up);
    assert.ok(up.out().includes(`http://127.0.0.1:${ports.port}`));
    assert.ok(up.out().includes(key));
    assert.is(statSync(join(data, 'demo-key')).mode & 0o777, 0o600);

    const curl = await paste(printed(up, 'curl'));
    assert.is(curl.code, 0, curl.err);
    assert.ok(!/error/.test(curl.out), curl.out);
    await until('hello-1 is in ClickHouse', async () => (await countOf(up, 'hello-1')) === 1, 20_000);
    if (await has('grpcurl')) {
      const grpcurl = await paste(printed(up, 'grpcurl'));
      assert.is(grpcurl.code, 0, grpcurl.err);
      await until('hello-2 is in ClickHouse', async () => (await countOf(up, 'hello-2')) === 1, 20_000);
    } else {
      assert.ok(printed(up, 'grpcurl').includes('sluice.ingest.v1.IngestService/Publish'));
    }
    const query = await paste(printed(up, 'npx sluice query'));
    assert.is(query.code, 0, query.err);
    assert.match(query.out, /hello-1/);
    assert.match(query.out, /https:\/\/shop\.example\//);

    await readmeIsTrue(up);
    await commandsBehave(data, ports);

    const { pids } = up.stack();
    assert.equal(Object.keys(pids).sort(), ['clickhouse', 'gateway', 'nats', 'worker']);
    up.child.kill('SIGINT');
    const { code, err } = await up.ended;
    assert.is(code, 0, err);
    for (const [name, pid] of Object.entries(pids)) assert.not(isAlive(pid), name);
    nothingLeft(data);
    for (const file of readdirSync(join(data, 'logs'))) {
      // The last 32 characters, which may have a "_" among them.
      const secret = key.slice(-32);
      assert.not(readFileSync(join(data, 'logs', file), 'utf8').includes(secret), file);
    }

    const again = await startUp(data, ports);
    assert.is(keyOf(again), key);
    assert.is(await countOf(again, 'hello-1'), 1);
    assert.ok(await send(again, key, 'second-start'));
    await until('the new event is there', async () => (await countOf(again, 'second-start')) === 1, 20_000);

    const locked = await sluice(['up', ...flagsOf(data, await freePorts())]);
    assert.is(locked.code, 1);
    assert.match(locked.err, new RegExp(`^The data folder .* is in use by .*${again.child.pid}.*--data.*\\n$`));
    assert.is(locked.out, '');

    again.child.kill('SIGTERM');
    assert.is((await again.ended).code, 0);
    nothingLeft(data);
  });
});

test('a killed process is started again and events get through; when the supervisor is killed, all ends; a second Ctrl-C ends at once', async () => {
  await withFolder(async (data) => {
    const ports = await freePorts();
    const up = await startUp(data, ports);
    const key = keyOf(up);
    for (const name of ['worker', 'gateway', 'clickhouse', 'nats']) {
      const before = up.stack().pids[name] ?? 0;
      process.kill(before, 'SIGKILL');
      const id = `after-${name}`;
      await until(
        `${name} is back`,
        () => {
          const now = up.stack().pids[name] ?? 0;
          return now !== before && now !== 0 && isAlive(now);
        },
        30_000,
      );
      // An event that was taken twice by a retry is one event; it must be there once or more, never lost.
      await until(`an event is taken after ${name} was killed`, () => send(up, key, id), 30_000);
      await until(`${id} is in ClickHouse`, async () => (await countOf(up, id)) >= 1, 30_000);
      assert.match(up.err(), new RegExp(`${name} ended with .*; starting it again`));
    }
    const { pids } = up.stack();
    // The gateway takes its time to end, so the next stack finds it on its port.
    process.kill(pids.gateway ?? 0, 'SIGSTOP');
    up.child.kill('SIGKILL');
    await up.ended;
    setTimeout(() => process.kill(pids.gateway ?? 0, 'SIGCONT'), 8_000);
    const again = await startUp(data, ports);
    assert.match(again.err(), /Waiting for what is left of it: .*gateway \(process \d+\)/);
    assert.not(Object.values(pids).some(runs));

    // The lock of the dead supervisor is taken over, and nothing was lost.
    assert.ok((await countOf(again, 'after-nats')) >= 1);
    again.child.kill('SIGINT');
    await until('it says that it ends', () => again.err().includes('Ctrl-C again'), 5_000);
    const since = performance.now();
    again.child.kill('SIGINT');
    await again.ended;
    assert.ok(performance.now() - since < 2_000);
    nothingLeft(data);
  });
});

test('it listens on IPv6 as well, and prints lines that work there', async () => {
  await withFolder(async (data) => {
    const up = await startUp(data, await freePorts(), ['--host', '::1']);
    const curl = await paste(printed(up, 'curl'));
    assert.is(curl.code, 0, curl.err);
    assert.match(curl.out, /"accepted":1/);
    await until('hello-1 is in ClickHouse', async () => (await countOf(up, 'hello-1')) === 1, 20_000);
    assert.is((await paste(printed(up, 'npx sluice query'))).code, 0);
    up.child.kill('SIGTERM');
    assert.is((await up.ended).code, 0);
  });
});

test('a folder that cannot be is refused at once', async () => {
  for (const [data, said] of [
    ['', /^--data is empty\. Folder of all data/],
    ['/proc/sluice', /^The data folder \/proc\/sluice cannot be made: .*--data/],
    ['/dev/null/x', /^The data folder .* cannot be made: .*ENOTDIR/],
    ['.', /^The data folder \. holds other things \(.*\): .*--data/],
    ['~/sluice', /^The data folder ~\/sluice begins with "~".*--data the whole path/],
  ] as const) {
    for (const name of ['up', 'doctor']) {
      const { code, out, err } = await sluice([name, '--data', data]);
      assert.is(code, 1, `${name} ${data}`);
      if (name === 'up') assert.match(err, said);
      else assert.match(out + err, /--data/);
    }
  }
});

test('an address that this machine does not have is reported with its flag', async () => {
  await withFolder(async (data) => {
    for (const host of ['[::1]', '192.0.2.1']) {
      const { code, err } = await sluice(['up', ...flagsOf(data, await freePorts()), '--host', host]);
      assert.is(code, 1);
      assert.match(err, /^Port \d+ .*cannot be had at ".*--host to an address of this machine/);
      assert.not.match(err, /--port/);
    }
  });
});

test('Ctrl-C while it starts ends it at once, and leaves nothing', async () => {
  await withFolder(async (data) => {
    const ports = await freePorts();
    const up = command(process.execPath, ['cli/sluice.mjs', 'up', ...flagsOf(data, ports)]);
    await until('it starts', () => up.err().includes('Starting nats-server'), 20_000);
    const since = performance.now();
    up.child.kill('SIGINT');
    assert.is((await up.ended).code, 0, up.err());
    assert.ok(performance.now() - since < 10_000, up.err());
    nothingLeft(data);
  });
});

test('a start after a kill waits for ports that the killed stack still holds', async () => {
  await withFolder(async (data) => {
    // Killed while it started: there is a lock, and no list of parts.
    writeFileSync(join(data, 'up.lock'), '999999999');
    const ports = await freePorts();
    const holder = createServer().listen(ports.clickhousePort, '127.0.0.1');
    await new Promise((resolve) => holder.once('listening', resolve));
    const up = command(process.execPath, ['cli/sluice.mjs', 'up', ...flagsOf(data, ports)]);
    await until('it waits', () => up.err().includes(`Waiting for port ${ports.clickhousePort}`), 20_000);
    await new Promise((resolve) => holder.close(resolve));
    await until('it starts', () => up.err().includes('Starting nats-server'), 20_000);
    up.child.kill('SIGINT');
    assert.is((await up.ended).code, 0, up.err());
    nothingLeft(data);
  });
});

test('a busy port is one line with its holder and the flag', async () => {
  await withFolder(async (data) => {
    const holder = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => holder.once('listening', resolve));
    const { port } = holder.address() as { port: number };
    try {
      const { code, out, err } = await sluice([
        'up',
        ...flagsOf(data, { ...(await freePorts()), clickhousePort: port }),
      ]);
      assert.is(code, 1);
      assert.is(out, '');
      assert.match(err, new RegExp(`^Port ${port} .* by \\S+ \\(process ${process.pid}\\).*--clickhouse-port.*\\n$`));
      nothingLeft(data);
      assert.equal(readdirSync(data), []);
    } finally {
      await new Promise((resolve) => holder.close(resolve));
    }
  });
});

test('a worker whose table does not fit says so and waits; the gateway takes events, and the worker starts once it is mended', async () => {
  await withFolder(async (data) => {
    const ports = await freePorts();
    const first = await startUp(data, ports);
    const alter = (change: string) => sluice(['query', '--data', data, `ALTER TABLE events ${change}`]);
    await alter('DROP COLUMN app_build');
    await alter('ADD COLUMN app_build UInt64');
    first.child.kill('SIGTERM');
    assert.is((await first.ended).code, 0);

    const up = await startUp(data, ports);
    assert.match(
      up.err(),
      /worker waits, and starts by itself when it can: .*column app_build is UInt64, and should be/,
    );
    assert.match(up.out(), /Sluice runs without worker, which waits/);
    assert.ok(await send(up, keyOf(up), 'meanwhile'));
    const metrics = await (await fetch(`http://127.0.0.1:${ports.workerMetricsPort}/metrics`)).text();
    assert.match(metrics, /sluice_worker_waiting\{[^}]*for="table"[^}]*\} 1/);
    assert.match(
      (await sluice(['shards', '--data', data])).out,
      /no worker loads it: one waits itself: .*column app_build is UInt64/,
    );
    await alter('RENAME COLUMN app_build TO app_build_number');
    await until('the event is stored', async () => (await countOf(up, 'meanwhile')) === 1, 30_000);
    assert.match(up.err(), /worker is ready now/);
    up.child.kill('SIGTERM');
    assert.is((await up.ended).code, 0);
    nothingLeft(data);
  });
});

test.run();
