/**
 * The users of deploy/clickhouse-users.xml on the real engine, embedded (no ClickHouse server is at hand): what each may, and what not.
 * What only a server has is not covered: the log-in with the hashes, and the files of /etc/clickhouse-server.
 */
import { fork } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { clickhouseClientOptions, resolveOptions, testEnvironment } from '../lib/config/index.js';
import { silentLogger } from '../lib/logger.js';
import { programFlags, programPath } from '../lib/testing/program.js';
import { type ClickHouse, createClickHouse } from '../workers/clickhouse/client.js';
import { eventsTable } from '../workers/clickhouse/connect.js';
import { failedMutations, prepareTable } from '../workers/clickhouse/prepare-table.js';

const root = fileURLToPath(new URL('..', import.meta.url));

/** The second test reads what the first one has made. */
const folder = mkdtempSync(join(tmpdir(), 'sluice-granted-'));
test.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

async function asUser(user: string, use: (clickhouse: ClickHouse) => Promise<void>): Promise<void> {
  const child = fork(programPath('deploy/testing/granted-clickhouse.ts'), [user, folder], {
    cwd: root,
    execArgv: [...programFlags],
    env: testEnvironment(),
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  try {
    const { port } = await new Promise<{ port: number }>((resolve, reject) => {
      child.once('message', (message) => resolve(message as { port: number }));
      void gone.then((code) => reject(new Error(`the engine ended with ${code}`)));
    });
    const settings = { clickhouseUrl: `http://127.0.0.1:${port}` };
    const clickhouse = createClickHouse(resolveOptions(clickhouseClientOptions, settings, {}), silentLogger);
    try {
      await use(clickhouse);
    } finally {
      await clickhouse.close();
    }
  } finally {
    child.kill('SIGKILL');
    await gone;
  }
}

/** Ways out of the server, and to what is not Sluice's. */
const outside = [
  "SELECT * FROM file('/etc/passwd', 'LineAsString')",
  "INSERT INTO FUNCTION file('x.csv') SELECT 1",
  "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
  "SELECT * FROM remote('127.0.0.1', 'system', 'one')",
  "SELECT * FROM s3('http://bucket.s3.amazonaws.com/x', 'LineAsString')",
  "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
  "CREATE TEMPORARY TABLE f (a String) ENGINE = File(CSV, '/etc/passwd')",
  "BACKUP TABLE sluice.events TO File('x')",
  'CREATE DATABASE other',
  'CREATE TABLE sluice.other (a Int8) ENGINE = MergeTree ORDER BY a',
  'CREATE USER somebody',
  'DROP TABLE sluice.events',
  'TRUNCATE TABLE sluice.events',
  'RENAME TABLE sluice.events TO sluice.mine',
  'ALTER TABLE sluice.events DROP COLUMN user_id',
  'SELECT * FROM system.users',
  'SYSTEM SHUTDOWN',
];

async function isRefused(clickhouse: ClickHouse, statement: string): Promise<void> {
  try {
    await clickhouse.command(statement);
  } catch (error) {
    assert.match((error as Error).message, /ACCESS_DENIED/, statement);
    return;
  }
  assert.unreachable(`${statement} was not refused`);
}

test('the user of the workers makes its table, changes, loads and cleans it, and reaches nothing else', async () => {
  await asUser('sluice', async (clickhouse) => {
    const target = eventsTable('sluice');
    await prepareTable(clickhouse, target);
    // A table of an older version, with a column and an index too few and a narrower type.
    await prepareTable(clickhouse, target, silentLogger);
    for (const statement of [
      'ALTER TABLE sluice.events ADD COLUMN IF NOT EXISTS `later` String',
      'ALTER TABLE sluice.events MODIFY COLUMN `later` LowCardinality(String)',
      'ALTER TABLE sluice.events ADD INDEX IF NOT EXISTS by_later later TYPE minmax GRANULARITY 1',
      'ALTER TABLE sluice.events MATERIALIZE INDEX by_later',
      'ALTER TABLE sluice.events MODIFY SETTING min_bytes_for_wide_part = 268435456',
      "INSERT INTO sluice.events (tenant, _shard) SELECT tenant, 1 FROM input('tenant String') FORMAT Values ('acme')",
      "INSERT INTO sluice.events (tenant, _shard) SELECT 'acme', 1",
      "INSERT INTO FUNCTION null('tenant String') SELECT 'acme'",
      "ALTER TABLE sluice.events DELETE WHERE tenant = 'gone'",
      "ALTER TABLE sluice.events DROP PARTITION '2020-01-01'",
      "KILL QUERY WHERE query_id = 'sluice-0-0-0' AND user = currentUser() ASYNC",
    ]) {
      await clickhouse.command(statement);
    }
    assert.equal(await failedMutations(clickhouse, target), []);
    for (const look of [
      'SELECT toString(count() - 1) AS n FROM sluice.events',
      "SELECT toString(count()) AS n FROM system.processes WHERE user = currentUser() AND query_id != ''",
      "SELECT toString(count()) AS n FROM system.settings WHERE name = 'http_receive_timeout'",
    ]) {
      assert.equal(await clickhouse.rows(look), [{ n: '1' }], look);
    }
    for (const statement of outside) await isRefused(clickhouse, statement);
  });
});

test('an analyst reads, within limits that no statement lifts', async () => {
  await asUser('analyst', async (clickhouse) => {
    assert.equal(await clickhouse.rows("SELECT toString(getSetting('readonly')) AS mode"), [{ mode: '2' }]);
    assert.equal(await clickhouse.rows('SELECT DISTINCT tenant FROM sluice.events'), [{ tenant: 'acme' }]);
    await clickhouse.rows('SELECT 1', {}, { output_format_pretty_color: 0 });
    for (const statement of [...outside, "INSERT INTO sluice.events (tenant) VALUES ('acme')"]) {
      await isRefused(clickhouse, statement);
    }
    for (const setting of [
      'max_memory_usage = 8000000000',
      'max_threads = 64',
      // No limit at all.
      'max_execution_time = 0',
      'max_memory_usage = 0',
      'max_concurrent_queries_for_user = 0',
      'max_execution_time = 3600',
      'readonly = 0',
    ]) {
      try {
        await clickhouse.command(`SELECT 1 SETTINGS ${setting}`);
        assert.unreachable(`${setting} was not refused`);
      } catch (error) {
        assert.match((error as Error).message, /SETTING_CONSTRAINT_VIOLATION|READONLY/, setting);
      }
    }
  });
});

test('no user has a source or a right over all tables, and no password stands in the file', () => {
  const text = readFileSync(join(root, 'deploy/clickhouse-users.xml'), 'utf8');
  const grants = [...text.matchAll(/<query>GRANT (.*?)<\/query>/g)].map((match) => match[1] ?? '');
  assert.ok(grants.length >= 14);
  for (const grant of grants) {
    if (['CREATE TEMPORARY TABLE ON *.*', 'SHOW DATABASES ON default.*'].includes(grant)) continue;
    assert.match(grant, / ON (?:sluice\.(?:events|\*)|system\.\w+|MergeTree)$/);
  }
  assert.not.match(text, /<password(?:_\w+)?>[^<]/);
});

test.run();
