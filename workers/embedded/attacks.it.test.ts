/**
 * The embedded server under attack from this machine: pages in a browser, other users, and statements that want files.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from '@clickhouse/client';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withClickHouse } from '../../lib/testing/clickhouse.js';

const folder = mkdtempSync(join(tmpdir(), 'sluice-attacks-'));
test.after(() => rmSync(folder, { recursive: true }));
const secret = join(folder, 'secret');
writeFileSync(secret, 'slk_of-somebody\n');

interface Asked {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** @returns status and text */
function ask(
  url: string,
  path: string,
  { method = 'GET', headers = {}, body = '' }: Asked = {},
): Promise<[number, string]> {
  return new Promise((resolve, reject) => {
    const sent = request(`${url}${path}`, { method, headers }, (answer) => {
      let text = '';
      answer.on('data', (chunk) => (text += String(chunk)));
      answer.on('end', () => resolve([answer.statusCode ?? 0, text]));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

const byGet = (statement: string): string => `/?${new URLSearchParams({ query: statement })}`;
const run = (url: string, statement: string): Promise<[number, string]> =>
  ask(url, '/', { method: 'POST', body: statement });

test('a page cannot reach it: neither under a name of its own, nor from another site', async () => {
  await withClickHouse(async ({ url }) => {
    for (const host of ['evil.example', 'evil.example:8123', '127.0.0.1.evil.example', '0.0.0.0']) {
      for (const path of ['/ping', byGet('SELECT 1')]) {
        const [status, text] = await ask(url, path, { headers: { host } });
        assert.is(status, 403, host);
        assert.match(text, /^The name in the Host header is not one of this server: call it as 127\.0\.0\.1/);
      }
    }
    for (const host of ['127.0.0.1', 'localhost:1', '[::1]:8123']) {
      assert.equal(await ask(url, byGet('SELECT 1'), { headers: { host } }), [200, '1\n'], host);
    }
    // What a form or an image of another site sends.
    const form = { 'content-type': 'text/plain', origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' };
    const drop = { method: 'POST', body: 'CREATE TABLE theirs (a Int8) ENGINE = Memory' };
    assert.is((await ask(url, '/', { ...drop, headers: form }))[0], 403);
    assert.is((await ask(url, '/', { ...drop, headers: { origin: 'null' } }))[0], 403);
    assert.is((await ask(url, byGet('SELECT 1'), { headers: { 'sec-fetch-site': 'cross-site' } }))[0], 403);
    assert.is((await ask(url, '/', { method: 'OPTIONS', headers: { origin: 'https://evil.example' } }))[0], 403);
    assert.equal(await run(url, 'EXISTS TABLE theirs'), [200, '0\n']);
  });
});

test('GET changes nothing, in one statement or in two', async () => {
  await withClickHouse(async ({ url }) => {
    await run(url, 'CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a');
    for (const statement of [
      'DROP TABLE t',
      'CREATE TABLE u (a Int8) ENGINE = Memory',
      'INSERT INTO t VALUES (1)',
      'INSERT INTO t SELECT 1',
      'ALTER TABLE t ADD COLUMN b Int8',
      'TRUNCATE TABLE t',
      '/* a */ DROP TABLE t -- b',
      `KILL QUERY WHERE query_id = 'x' SYNC`,
      `KILL MUTATION WHERE table = 't'`,
      'SYSTEM DROP MARK CACHE',
      'OPTIMIZE TABLE t',
    ]) {
      const [status, text] = await ask(url, byGet(statement));
      assert.is(status, 500, statement);
      assert.match(text, /Code: 164\..*readonly mode/, statement);
    }
    for (const reading of [
      'SHOW TABLES',
      'DESCRIBE t',
      'EXISTS t',
      'EXPLAIN SELECT 1',
      'WITH 1 AS a SELECT a',
      '(SELECT 1) UNION ALL (SELECT 2)',
    ]) {
      assert.is((await ask(url, byGet(reading)))[0], 200, reading);
    }
    assert.is((await run(url, `KILL QUERY WHERE query_id = 'x' SYNC`))[0], 200, 'by POST it runs');
    for (const two of ['SELECT 1; DROP TABLE t', 'SET readonly = 0; DROP TABLE t', 'SELECT 1;; DROP TABLE t']) {
      assert.match((await ask(url, byGet(two)))[1], /Multi-statements are not allowed/);
      assert.match((await run(url, two))[1], /Multi-statements are not allowed/);
    }
    assert.is((await ask(url, byGet('SET readonly = 0')))[0], 200);
    assert.is((await ask(url, byGet('DROP TABLE t')))[0], 500, 'SET ends with its request');
    assert.match((await ask(url, `${byGet('DROP TABLE t')}&readonly=0`))[1], /READONLY|readonly/);
    assert.equal(await ask(url, `${byGet("SELECT getSetting('max_threads')")}&max_threads=3`), [200, '3\n']);
    assert.equal(await ask(url, byGet('SELECT count() FROM t')), [200, '0\n']);
    // A failed statement gives the session a new one, which is as strict.
    await ask(url, byGet('SELECT number, throwIf(number = 70000) FROM numbers(100000)'));
    assert.is((await ask(url, byGet('DROP TABLE t')))[0], 500);
    assert.equal(await run(url, 'EXISTS TABLE t'), [200, '1\n']);
  });
});

test('a password is asked for, in each of the ways that clients show it, and compared whole', async () => {
  const file = join(folder, 'password');
  writeFileSync(file, 'p:ass word\n');
  await withClickHouse(
    async ({ url }) => {
      const basic = (user: string, password: string) => ({
        authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`,
      });
      const right = 'p:ass word';
      for (const headers of [basic('default', right), { 'x-clickhouse-user': 'default', 'x-clickhouse-key': right }]) {
        assert.equal(await ask(url, byGet('SELECT 1'), { headers }), [200, '1\n']);
      }
      assert.equal(await ask(url, `${byGet('SELECT 1')}&user=default&password=p%3Aass+word`), [200, '1\n']);
      const wrong: Record<string, string>[] = [
        {},
        basic('default', ''),
        basic('default', 'p'),
        basic('default', `${right}!`),
        basic('admin', right),
        { authorization: 'Bearer x' },
        { 'x-clickhouse-key': 'x' },
      ];
      for (const headers of wrong) {
        const [status, text] = await ask(url, '/', { method: 'POST', headers, body: 'SELECT 1' });
        assert.is(status, 403);
        assert.match(text, /^Code: 516\. DB::Exception: default: Authentication failed: .*clickhouse-password/);
        assert.not.match(text, /p:ass/);
      }
      assert.equal(await ask(url, '/ping'), [200, 'Ok.\n']);
      const client = createClient({ url, password: right, log: { level: 127 } });
      const answer = await client.query({ query: 'SELECT 1 AS a', format: 'JSONEachRow' });
      assert.equal(await answer.json(), [{ a: 1 }]);
      await client.close();
    },
    tmpdir(),
    ['--clickhouse-password-file', file],
  );
});

test('a stranger’s body is not read: a connection without the password ends', async () => {
  const file = join(folder, 'password');
  writeFileSync(file, 'secret\n');
  await withClickHouse(
    async ({ url }) => {
      const socket = connect(Number(new URL(url).port), '127.0.0.1');
      let text = '';
      socket.on('data', (chunk) => (text += String(chunk)));
      socket.on('error', () => undefined);
      socket.write(`POST /?query=x HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000000\r\n\r\n`);
      const since = performance.now();
      await new Promise((resolve) => socket.once('close', resolve));
      assert.match(text, /^HTTP\/1\.1 403 [\s\S]*Code: 516/);
      assert.ok(performance.now() - since < 5_000);
    },
    tmpdir(),
    ['--clickhouse-password-file', file],
  );
});

const path = (name: string): string => `'${name}'`;

test('statements read and write no files, reach no network, and run no programs', async () => {
  await withClickHouse(async ({ url }) => {
    await run(url, 'CREATE TABLE t (a String) ENGINE = MergeTree ORDER BY a');
    const out = join(folder, 'out');
    const refused = [
      `SELECT * FROM file(${path(secret)}, 'LineAsString', 'l String')`,
      `DESCRIBE file(${path(secret)})`,
      `SELECT * FROM \`${secret}\``,
      `SELECT * FROM default.\`${secret}\``,
      `SELECT file(${path(secret)})`,
      `SELECT "fi\\x6ce"(${path(secret)})`,
      `SELECT * FROM values('a String DEFAULT file(\\'${secret}\\')', 'x')`,
      `CREATE VIEW v AS SELECT file(${path(secret)}) AS a`,
      `SELECT arrayMap(file, [${path(secret)}])`,
      `SELECT arrayMap(("fi\\x6ce") AS f, [${path(secret)}])`,
      `SELECT * APPLY(file) FROM (SELECT ${path(secret)} AS a)`,
      `CREATE TABLE f (a String, b Array(String) DEFAULT arrayMap(file, [a])) ENGINE = MergeTree ORDER BY a`,
      `SELECT * FROM eval(concat('SELECT fi', 'le(''${secret}'')')) SETTINGS allow_experimental_eval_table_function = 1`,
      `SELECT 1 SETTINGS additional_result_filter = 'throwIf("fi\\\\x6ce"(\\'${secret}\\') != \\'\\')'`,
      `SELECT 1 FROM system.one SETTINGS additional_table_filters = {'system.one':'1'}`,
      `SELECT 1 AS a FORMAT Template SETTINGS format_template_row = ${path(secret)}`,
      `SELECT 1 AS a FORMAT Template SETTINGS format_template_resultset = ${path(secret)}`,
      `SELECT * FROM format(CSV, 'a Int8', 'x\n1\n') SETTINGS input_format_allow_errors_num = 9, errors_output_format = 'CSV', input_format_record_errors_file_path = ${path(out)}`,
      `SELECT * FROM format(AvroConfluent, 'a String', unhex('0000000001')) SETTINGS format_avro_schema_registry_url = 'http://127.0.0.1:9'`,
      `CREATE VIEW v DEFINER = spool SQL SECURITY DEFINER AS SELECT * FROM loop(default, t)`,
      `CREATE TABLE f (a String) ENGINE = File(LineAsString, ${path(secret)})`,
      `CREATE TABLE f (a String) ENGINE = FileLog(${path(folder)}, 'LineAsString')`,
      `CREATE TABLE f (a String) ENGINE = EmbeddedRocksDB(0, ${path(folder)}) PRIMARY KEY a`,
      `CREATE TABLE f (a String) ENGINE = URL('http://127.0.0.1:9/', 'CSV')`,
      `CREATE TABLE f (a String) ENGINE = SQLite(${path(secret)}, 't')`,
      `CREATE TABLE f (a String) ENGINE = Executable('x.sh', 'CSV')`,
      `CREATE DATABASE f ENGINE = Filesystem(${path(folder)})`,
      `CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE(FILE(path ${path(secret)} format 'LineAsString')) LAYOUT(FLAT()) LIFETIME(0)`,
      `CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE(EXECUTABLE(command 'id' format 'TSV')) LAYOUT(FLAT()) LIFETIME(0)`,
      `ATTACH TABLE f FROM ${path(folder)} (a String) ENGINE = MergeTree ORDER BY a`,
      `INSERT INTO t FROM INFILE ${path(secret)} FORMAT LineAsString`,
      `SELECT 1 INTO OUTFILE ${path(out)}`,
      `SELECT 1 into/**/outfile ${path(out)}`,
      `INSERT INTO FUNCTION file(${path(out)}, 'CSV', 'a Int8') VALUES (1)`,
      `BACKUP TABLE t TO File(${path(out)})`,
      `CREATE TABLE f (a String) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = ${path(`${out}/`)})`,
      `SELECT * FROM url('http://127.0.0.1:9/', 'CSV', 'a String')`,
      `SELECT * FROM remote('127.0.0.1:9', 'system', 'one')`,
      `SELECT * FROM mysql('127.0.0.1:9', 'a', 'b', 'c', 'd')`,
      `SELECT * FROM postgresql('127.0.0.1:9', 'a', 'b', 'c', 'd')`,
      `SELECT * FROM s3('http://127.0.0.1:9/bucket/x', 'CSV', 'a String')`,
      `SELECT * FROM sqlite(${path(secret)}, 't')`,
      `SELECT * FROM executable('x.sh', 'CSV', 'a String')`,
      `CREATE USER other`,
      `GRANT READ ON FILE TO default`,
      `SYSTEM SHUTDOWN`,
      `DROP VIEW _spool.body`,
      `CREATE OR REPLACE VIEW _spool.body AS SELECT 1`,
      `RENAME TABLE _spool.body TO default.body`,
      `DROP DATABASE _spool`,
      `SELECT * FROM _spool.body(n = '../../x', format = 'LineAsString', structure = 'l String')`,
    ];
    for (const statement of refused) {
      const [status, text] = await run(url, statement);
      assert.is.not(status, 200, statement);
      assert.not.match(text, /slk_/, statement);
      assert.not.ok(existsSync(out), statement);
    }
    // Data of an INSERT is data: neither expressions that read files, nor statements behind it.
    for (const data of [
      `INSERT INTO t VALUES (file(${path(secret)}))`,
      `INSERT INTO t SETTINGS input_format_values_interpret_expressions = 1 VALUES (file(${path(secret)}))`,
      `INSERT INTO t VALUES ("fi\\x6ce"(${path(secret)}))`,
      `INSERT INTO t VALUES ('a'); SELECT 1 INTO OUTFILE ${path(out)}`,
      `INSERT INTO t FORMAT TSV\nb\n\nSELECT 1 INTO OUTFILE ${path(out)}`,
      `INSERT INTO t SELECT a FROM input('a String') FORMAT TSV\nd\n\nSELECT 1 INTO OUTFILE ${path(out)}`,
      `INSERT INTO t FORMAT TSV\nc\n\nDROP TABLE t`,
    ]) {
      await run(url, data);
      assert.not.ok(existsSync(out), data);
    }
    const [, rows] = await run(url, 'SELECT a FROM t ORDER BY a');
    assert.not.match(rows, /slk_/);
    assert.match(rows, /^DROP TABLE t$/m, 'it is a row like others');
    for (const usual of [
      `SELECT count() FROM numbers(3)`,
      `CREATE MATERIALIZED VIEW mv ENGINE = MergeTree ORDER BY a AS SELECT a FROM t`,
      `INSERT INTO t VALUES ('x;y'), ('z')`,
      `OPTIMIZE TABLE t FINAL`,
      `ALTER TABLE t ADD COLUMN b Int8 DEFAULT 1`,
      `SELECT count() FROM system.parts WHERE table = 't'`,
      `EXPLAIN SELECT 1`,
      `SHOW CREATE TABLE t`,
      `DROP TABLE mv`,
    ]) {
      const [status, text] = await run(url, usual);
      assert.is(status, 200, `${usual}: ${text}`);
    }
  });
});

test('the structure of a table function is a literal of names and types: no column of it calls a function', async () => {
  await withClickHouse(async ({ url }) => {
    const call = `"fi\\\\x6ce"(\\'${secret}\\')`;
    const joined = `concat('a String, b String ALIAS fi', 'le(\\'${secret}\\')')`;
    for (const statement of [
      `SELECT * FROM format(JSONEachRow, concat('a String, b String DEFAULT fi', 'le(\\'${secret}\\')'), '{"a":"x"}')`,
      `SELECT * FROM format(JSONEachRow, 'a String, b String DEFAULT ${call}', '{"a":"x"}')`,
      `SELECT * FROM FORMAT(JSONEachRow, 'a String,\n b String\ndefault ${call}', '{"a":"x"}')`,
      `SELECT b FROM generateRandom('a UInt8, b String ALIAS ${call}') LIMIT 1`,
      `SELECT b FROM generateRandom(${joined}) LIMIT 1`,
      `WITH ${joined} AS s SELECT b FROM generateRandom(s) LIMIT 1`,
      `SELECT b FROM loop(generateRandom(${joined})) LIMIT 1`,
      `SELECT b FROM values('a String, b String ALIAS ${call}', ('a'))`,
      `SELECT b FROM VALUES('a String, b String MATERIALIZED ${call}', ('a'))`,
      `SELECT 1 WHERE 'x' IN (SELECT b FROM view(SELECT b FROM generateRandom(${joined}) LIMIT 1))`,
      `CREATE TABLE theirs AS generateRandom(${joined})`,
      `CREATE VIEW theirs AS SELECT * FROM format(JSONEachRow, {s:String}, '{"a":"x"}')`,
      `INSERT INTO FUNCTION null(${joined}) SELECT 'x'`,
      `DESCRIBE generateRandom(${joined})`,
      `SHOW TABLES WHERE name IN (SELECT b FROM generateRandom('a UInt8') LIMIT 1)`,
      `SELECT * FROM _spool.body(n = 0, format = 'LineAsString', structure = 'l String')`,
      `SELECT 1 SETTINGS format_schema_source = 'query'`,
      `SELECT 1 SETTINGS format_schema_source = 'file'`,
    ]) {
      const [status, text] = await run(url, statement);
      assert.is(status, 500, `${statement}: ${text}`);
      assert.match(text, /Code: (?:497|452)\./, statement);
      assert.not.match(text, /slk_/, statement);
    }
    const given = new URLSearchParams({
      query: 'SELECT b FROM generateRandom({s:String}) LIMIT 1',
      param_s: `b String ALIAS "fi\\\\x6ce"('${secret}')`,
    });
    assert.match((await ask(url, `/?${given}`))[1], /Code: 497\..*without DEFAULT/);
    const inSpool = new URLSearchParams({ database: '_spool', query: `SELECT * FROM body(n = 0)` });
    assert.match((await ask(url, `/?${inSpool}`))[1], /Code: 497\..*_spool/);
    for (const usual of [
      `SELECT * FROM format(JSONEachRow, 'a String', '{"a":"x"}')`,
      `SELECT * FROM format(JSONEachRow, concat('{"a":', '"x"}'))`,
      `SELECT a FROM values('a String', concat('x', ''))`,
      `SELECT 'x' FROM values((concat('x', ''), 1), ('y', 2)) LIMIT 1`,
      `SELECT 'x' FROM generateRandom('a UInt8, b String') LIMIT 1`,
      `SELECT format('{}', concat('x', '')) FROM numbers(toUInt64(1))`,
    ]) {
      const [status, text] = await run(url, usual);
      assert.equal([status, text.trim().replace('{"a":"x"}', 'x')], [200, 'x'], usual);
    }
  });
});

/** Of the pinned engine: those that take no structure, and those of column-texts.ts. The rights refuse all others. */
const looked =
  'SQLStandardValues arrowstream dictionary eval executable format fuzzJSON fuzzQuery generateRandom generateSeries generate_series ' +
  'input loop merge mergeTreeAnalyzeIndexes mergeTreeAnalyzeIndexesUUID mergeTreeIndex mergeTreeProjection mergeTreeTextIndex null ' +
  'numbers numbers_mt primes prometheusQuery prometheusQueryRange timeSeriesData timeSeriesMetrics timeSeriesSamples timeSeriesSelector ' +
  'timeSeriesTags values view viewExplain viewIfPermitted zeros zeros_mt';
const outside =
  /^(?:azure|cosn|delta|file|gcs|hdfs|hudi|iceberg|jdbc|mongodb|mysql|odbc|oss|paimon|postgresql|redis|remote|s3|sqlite|url|ytsaurus|cluster)/;

test('the engine has no table function that was not looked at', async () => {
  await withClickHouse(async ({ url }) => {
    const [, text] = await run(url, 'SELECT name FROM system.table_functions ORDER BY name');
    const inside = text
      .trim()
      .split('\n')
      .filter((name) => !outside.test(name));
    assert.is(inside.join(' '), looked);
  });
});

const chromium = ['chromium', 'chromium-browser', 'google-chrome'].find(
  (program) => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0,
);

test('a real browser whose page has its name point here gets nothing', async () => {
  if (chromium === undefined) {
    process.stdout.write('skipped: no chromium here\n');
    return;
  }
  await withClickHouse(async ({ url }) => {
    const { port } = new URL(url);
    const flags = ['--headless', '--no-sandbox', '--disable-gpu', `--user-data-dir=${join(folder, 'chromium')}`];
    const rebound = '--host-resolver-rules=MAP evil.example 127.0.0.1';
    const target = `http://evil.example:${port}${byGet('SELECT 40 + 2')}`;
    const seen = spawnSync(chromium, [...flags, rebound, '--dump-dom', target], { encoding: 'utf8', timeout: 60_000 });
    assert.match(seen.stdout, /Host header is not one of this server/);
    const own = spawnSync(chromium, [...flags, '--dump-dom', `${url}${byGet('SELECT 40 + 2')}`], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    assert.match(own.stdout, /42/);
  });
});

test.run();
