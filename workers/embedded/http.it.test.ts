/**
 * The embedded server as its clients see it: over real sockets, with the real engine, killed and stopped.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { ClickHouseError, createClient } from '@clickhouse/client';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type TestClickHouse, withClickHouse } from '../../lib/testing/clickhouse.js';
import { freePort } from '../../lib/testing/nats.js';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { withSmallDisk } from '../../lib/testing/small-disk.js';
import { MiB } from '../../lib/units.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

/** A plain request: fetch would undo what is to be seen (compression), or hide it. */
function post(
  url: string,
  parameters: Record<string, string>,
  body: string | Uint8Array = '',
  headers: Record<string, string> = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(`${url}/?${new URLSearchParams(parameters)}`, { method: 'POST', headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text: Buffer.concat(chunks).toString('latin1'),
        }),
      );
      response.on('error', reject);
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

const insertCsv = "INSERT INTO t SELECT a FROM input('a Int64') FORMAT CSV";
const slow = 'SELECT sleepEachRow(0.5) FROM numbers(3)';

test('statements, settings, parameters and data come through; errors are those that the client knows', async () => {
  await withClickHouse(async ({ url }) => {
    const client = createClient({ url, compression: { response: true, request: true }, log: { level: 127 } });
    try {
      await client.command({ query: 'CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a' });
      // Data: plain, gzip, and cut short.
      assert.is((await post(url, { query: insertCsv }, '1\n2\n')).status, 200);
      const zipped = await post(url, { query: insertCsv }, gzipSync('3\n'), { 'content-encoding': 'gzip' });
      assert.is(zipped.status, 200, zipped.text);
      const cut = await post(url, { query: insertCsv }, gzipSync('4\n').subarray(0, 12), {
        'content-encoding': 'gzip',
      });
      assert.is(cut.status, 500);
      assert.is((await post(url, {}, 'SELECT sum(a) FROM t')).text, '6\n');
      assert.match(cut.text, /ZLIB_INFLATE_FAILED/);
      const lz4 = await post(url, { query: insertCsv }, 'x', { 'content-encoding': 'lz4' });
      assert.match(lz4.text, /plain or gzip here, not lz4/);
      // Data in the statement, and beside it.
      await client.command({
        query: 'INSERT INTO t SETTINGS max_threads = 1 VALUES (10)',
        clickhouse_settings: { max_block_size: '777' },
      });
      await client.insert({ table: 't', values: [{ a: 20 }, { a: 30 }], format: 'JSONEachRow' });
      assert.is((await post(url, {}, 'SELECT sum(a) FROM t')).text, '66\n');
      // Parameters of all sorts of text.
      for (const text of ["it's", 'a\nb\tc', '\\', '\\n', 'ü€😀', '']) {
        const result = await client.query({
          query: 'SELECT {x:String} AS x',
          query_params: { x: text },
          format: 'JSONEachRow',
        });
        assert.equal(await result.json(), [{ x: text }]);
      }
      const setting = await client.query({
        query: "SELECT getSetting('max_block_size') AS s",
        clickhouse_settings: { max_block_size: '777' },
        format: 'JSONEachRow',
      });
      assert.is(String(((await setting.json()) as { s: unknown }[])[0]?.s), '777');
      // Answers: gzip only where asked for.
      const ask = { query: 'SELECT number FROM numbers(5000)', enable_http_compression: '1' };
      const packed = await post(url, ask, '', { 'accept-encoding': 'gzip' });
      assert.is(packed.headers['content-encoding'], 'gzip');
      assert.is((await post(url, ask)).headers['content-encoding'], undefined);
      // Errors.
      const wrong = await client.query({ query: 'SELECT nope FROM t' }).catch((e: unknown) => e);
      assert.instance(wrong, ClickHouseError);
      assert.equal([(wrong as ClickHouseError).code, (wrong as ClickHouseError).type], ['47', 'UNKNOWN_IDENTIFIER']);
      const missing = await client.query({ query: 'SELECT 1 FROM missing' }).catch((e: unknown) => e);
      assert.equal([(missing as ClickHouseError).code, (missing as ClickHouseError).type], ['60', 'UNKNOWN_TABLE']);
      assert.is((await post(url, {}, ' ')).status, 500);
      assert.is((await post(url, { query: 'SELECT 1', 'a b': '1' })).status, 500);
      const raw = await post(url, { query: 'SELECT nope' });
      assert.is(raw.headers['x-clickhouse-exception-code'], '47');
    } finally {
      await client.close();
    }
  });
});

test('a client that freezes while it sends keeps no query_id from others, and its connection ends within seconds', async () => {
  await withClickHouse(async ({ url }) => {
    await post(url, { query: 'CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a' });
    const port = Number(new URL(url).port);
    /** Sends the head and ten bytes. Resolves with what came until the connection ended, and after how long. */
    const half = (
      parameters: Record<string, string>,
      head = '',
      sent: string | Uint8Array = '1\n2\n3\n4\n5\n',
    ): Promise<{ text: string; ms: number }> =>
      new Promise((resolve, reject) => {
        const since = performance.now();
        const socket = connect(port, '127.0.0.1');
        socket.write(
          `POST /?${new URLSearchParams(parameters)} HTTP/1.1\r\nhost: 127.0.0.1\r\n${head}content-length: 1000\r\n\r\n`,
        );
        socket.write(sent);
        let text = '';
        socket.on('data', (chunk) => {
          text += String(chunk);
        });
        socket.on('close', () => resolve({ text, ms: performance.now() - since }));
        socket.on('error', reject);
      });
    const frozen = [
      half({ query: insertCsv, query_id: 'block-1' }),
      half({ query: insertCsv, query_id: 'block-2' }, 'content-encoding: gzip\r\n', gzipSync('1\n2\n').subarray(0, 10)),
      half({ query_id: 'question-1' }),
    ];
    await new Promise((resolve) => setTimeout(resolve, 200));
    for (const id of ['block-1', 'block-2']) {
      const other = await post(url, { query: insertCsv, query_id: id }, '7\n');
      assert.is(other.status, 200, other.text);
    }
    assert.is((await post(url, { query_id: 'question-1' }, 'SELECT 1')).text, '1\n');
    for (const { text, ms } of await Promise.all(frozen)) {
      assert.match(text, /Code: 209.*Nothing of the body came/, text);
      assert.ok(ms > 3_000 && ms < 8_000, `${ms} ms`);
    }
    // Nothing of what was sent by halves is stored.
    assert.is((await post(url, {}, 'SELECT sum(a) FROM t')).text, '14\n');
  });
});

/** The first line and headers of a POST. */
const headOf = (parameters: Record<string, string>, length: number): string =>
  `POST /?${new URLSearchParams(parameters)} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: ${length}\r\n\r\n`;

async function sendSlowly(url: string): Promise<void> {
  const slow = connect(Number(new URL(url).port), '127.0.0.1');
  let answer = '';
  slow.on('data', (chunk) => {
    answer += String(chunk);
  });
  slow.write(headOf({ query: insertCsv, query_id: 'slow' }, 8));
  for (let i = 0; i < 4; i++) {
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    slow.write(`${i}\n`);
  }
  while (!answer.includes('\r\n\r\n')) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.match(answer, /^HTTP\/1.1 200/);
  slow.destroy();
}

async function readNothing(url: string): Promise<void> {
  // 64 MiB, of which a client that does not read lets a few pass.
  const query = 'SELECT repeat(toString(number), 1000) FROM numbers(20000)';
  const deaf = connect(Number(new URL(url).port), '127.0.0.1');
  deaf.pause();
  const ended = once(deaf, 'close');
  deaf.write(headOf({ query }, 0));
  await once(deaf, 'readable');
  await new Promise((resolve) => setTimeout(resolve, 7_000));
  deaf.resume();
  await ended;
  assert.ok(deaf.bytesRead < 60 * MiB, `${deaf.bytesRead} bytes`);
}

test('a body that comes slowly is taken whole; an answer that no client reads ends with its connection', async () => {
  await withClickHouse(async ({ url }) => {
    await post(url, { query: 'CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a' });
    await Promise.all([sendSlowly(url), readNothing(url)]);
  });
});

test('what is not for the server is refused, and does not end it', async () => {
  await withClickHouse(async ({ url }) => {
    const port = Number(new URL(url).port);
    const raw = (head: string): Promise<string> =>
      new Promise((resolve, reject) => {
        const socket = connect(port, '127.0.0.1', () =>
          socket.write(`${head}\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n`),
        );
        let text = '';
        socket.on('data', (chunk) => {
          text += String(chunk);
        });
        socket.on('close', () => resolve(text));
        socket.on('error', reject);
      });
    assert.match(await raw('GET // HTTP/1.1'), /^HTTP\/1.1 404/);
    assert.match(await raw('GET http://[ HTTP/1.1'), /^HTTP\/1.1 404/);
    assert.match(await raw('PUT / HTTP/1.1'), /^HTTP\/1.1 404/);
    assert.match(await raw('GET /?query=SELECT%201&x=%zz HTTP/1.1'), /^HTTP\/1.1 500/);
    assert.match(await raw('nonsense'), /^HTTP\/1.1 400/);
    // A web page that tries this machine's ports.
    assert.is((await post(url, {}, 'SELECT 1', { origin: 'https://example.com' })).status, 403);
    assert.is((await post(url, {}, 'SELECT 1', { 'sec-fetch-site': 'cross-site' })).status, 403);
  });
});

test('a statement that fails half way leaves nothing in the next answer; one without end is cut off', async () => {
  await withClickHouse(async ({ url }) => {
    const broken = 'SELECT throwIf(number = 150000), number FROM numbers(200000) SETTINGS max_block_size = 1000';
    for (let i = 0; i < 12; i++) {
      const failed = await post(url, {}, broken);
      assert.is(failed.headers['x-clickhouse-exception-code'], '395');
      const next = await post(url, {}, `SELECT ${i}`);
      assert.ok(next.text === `${i}\n`, `${next.text.length} bytes: ${next.text.slice(0, 40)}`);
    }
    const endless = await post(url, {}, 'SELECT repeat(toString(number), 100) FROM numbers(3000000)');
    assert.is(endless.headers['x-clickhouse-exception-code'], '396');
    await post(url, {}, 'USE system');
    assert.is((await post(url, {}, 'SELECT currentDatabase()')).text, 'default\n');
    assert.is((await post(url, { database: 'system' }, 'SELECT currentDatabase()')).text, 'system\n');
  });
});

test('a query id runs once at a time (216), and is free again afterwards', async () => {
  await withClickHouse(async ({ url }) => {
    const first = post(url, { query: slow, query_id: 'one' });
    let second = await post(url, { query: 'SELECT 1', query_id: 'one' });
    for (let i = 0; second.status === 200 && i < 20; i++)
      second = await post(url, { query: 'SELECT 1', query_id: 'one' });
    assert.is(second.headers['x-clickhouse-exception-code'], '216');
    assert.match(second.text, /QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING/);
    assert.is((await first).status, 200);
    assert.is((await post(url, { query: 'SELECT 1', query_id: 'one' })).text, '1\n');
  });
});

test('a long SELECT delays neither a short one nor /ping; any number of them delay no INSERT', async () => {
  await withClickHouse(async ({ url }) => {
    await post(url, { query: 'CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a' });
    let done = 0;
    const long = (): Promise<unknown> =>
      post(url, { query: slow }).then(() => {
        done++;
      });
    const running = [long()];
    assert.is((await post(url, { query: 'SELECT 1' })).text, '1\n');
    for (let i = 0; i < 3; i++) running.push(long());
    for (let i = 0; i < 5; i++) assert.is((await post(url, { query: insertCsv }, '1\n')).status, 200);
    assert.is(await (await fetch(`${url}/ping`)).text(), 'Ok.\n');
    assert.is(done, 0, 'the long ones still run');
    await Promise.all(running);
    assert.is((await post(url, { query: 'SELECT count() FROM t' })).text, '5\n');
  });
});

test('what an INSERT has reported is there after a SIGKILL at that moment, time after time', async () => {
  await withClickHouse(async (clickhouse: TestClickHouse) => {
    const { url } = clickhouse;
    await post(url, { query: 'CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a' });
    for (let round = 1; round <= 6; round++) {
      const answer = await post(url, { query: insertCsv }, `${round}\n`);
      clickhouse.process().kill('SIGKILL');
      assert.is(answer.status, 200, answer.text);
      await clickhouse.restart();
      assert.is(
        (await post(url, { query: 'SELECT count(), sum(a) FROM t' })).text,
        `${round}\t${(round * (round + 1)) / 2}\n`,
      );
    }
  });
});

/** A server of the test's own; resolves with how it ended, and what it wrote to stderr. */
function start(
  port: number,
  folder: string,
): { child: ChildProcess; ended: Promise<{ code: number | null; text: string }> } {
  const child = spawn(
    process.execPath,
    [
      ...programFlags,
      programPath('workers/embedded/main.ts'),
      '--clickhouse-port',
      String(port),
      '--clickhouse-data',
      folder,
    ],
    { cwd: root, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] },
  );
  let text = '';
  child.stderr?.on('data', (chunk) => {
    text += String(chunk);
  });
  return { child, ended: once(child, 'exit').then(([code]) => ({ code: code as number | null, text })) };
}

/** Lines that are not log lines. */
const plainLines = (text: string): string[] => text.split('\n').filter((line) => line !== '' && !line.startsWith('{'));

test('a server on another disk does not count as one that has the folder, though its files have the same numbers', async () => {
  await withSmallDisk(256, async (one) => {
    await withSmallDisk(256, async (two) => {
      await withClickHouse(async () => {
        await withClickHouse(async (clickhouse) => {
          clickhouse.process().kill('SIGKILL');
          await clickhouse.restart();
        }, two.folder);
      }, one.folder);
    });
  });
});

test('a folder or a port in use is one clear line and a failure; SIGTERM ends cleanly, after what runs', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-clickhouse-'));
  const other = await mkdtemp(join(tmpdir(), 'sluice-clickhouse-'));
  const port = await freePort();
  const first = start(port, folder);
  try {
    await Promise.race([once(first.child, 'message'), first.ended]);
    const sameFolder = await start(await freePort(), folder).ended;
    assert.is(sameFolder.code, 1);
    assert.is(plainLines(sameFolder.text).length, 1, sameFolder.text);
    assert.match(
      sameFolder.text,
      new RegExp(`in use by process ${first.child.pid}: end it, or give another folder by --clickhouse-data`),
    );
    const samePort = await start(port, other).ended;
    assert.is(samePort.code, 1);
    assert.is(plainLines(samePort.text).length, 1, samePort.text);
    assert.match(samePort.text, /Port \d+ is taken.*--clickhouse-port/);
    // The one that runs was not disturbed.
    const url = `http://127.0.0.1:${port}`;
    await post(url, { query: 'CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a' });
    const running = post(url, { query: 'INSERT INTO t SELECT sleepEachRow(0.2) + 1 FROM numbers(5)' });
    await post(url, { query: 'SELECT 1' });
    first.child.kill('SIGTERM');
    assert.is((await running).status, 200);
    assert.is((await first.ended).code, 0);
    assert.equal(await readdir(join(folder, 'spool')), []);
    // A parent that dies takes it along, and what it had in its spool does not stay.
    const orphan = start(port, folder);
    await Promise.race([once(orphan.child, 'message'), orphan.ended]);
    assert.is((await post(url, {}, 'SELECT count() FROM t')).text, '5\n');
    orphan.child.disconnect();
    assert.is((await orphan.ended).code, 0);
  } finally {
    first.child.kill('SIGKILL');
    await rm(folder, { recursive: true, force: true });
    await rm(other, { recursive: true, force: true });
  }
});

test.run();
