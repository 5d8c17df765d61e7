import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { endsWithRequest, inlineInsert, refusal } from './refused.js';

test('files, disks and the folders of engines are refused by name; texts and names that look like them are not', () => {
  for (const statement of [
    "SELECT 1 INTO OUTFILE 'x'",
    "INSERT INTO t FROM INFILE 'x' FORMAT CSV",
    "SELECT file('x')",
    "SELECT * FROM values('a String DEFAULT file(''x'')', 1)",
    "SELECT arrayMap(file, ['x'])",
    "SELECT arrayMap((file) AS `f`, ['x'])",
    "SELECT arrayMap(file AS f, ['x'])",
    "SELECT arrayMap({f:Identifier}, ['x'])",
    'SELECT * APPLY file FROM t',
    "ATTACH TABLE t FROM '/x/' (`a` String) ENGINE = MergeTree ORDER BY a",
    "CREATE TABLE t (`a` String) ENGINE = EmbeddedRocksDB(0, 'x') PRIMARY KEY a",
    "CREATE TABLE t (`a` String) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = 'x')",
  ]) {
    assert.type(refusal(statement), 'string', statement);
  }
  for (const statement of [
    "SELECT 'INTO OUTFILE it\\'s FROM INFILE'",
    'SELECT `a INTO OUTFILE \\` b` FROM t',
    "SELECT file, profile('x'), count(file), concat(t.file, 'x') FROM t",
    'INSERT INTO t (file, b) FORMAT CSV',
    "SELECT 'arrayMap(file, x)' FROM t",
    'ATTACH TABLE t',
    "SELECT * FROM t WHERE a = 'ENGINE = FileLog disk(x)'",
  ]) {
    assert.is(refusal(statement), undefined, statement);
  }
});

test('an INSERT with data in its text is distinguished from one that selects', () => {
  assert.equal(inlineInsert('INSERT INTO t FORMAT Values'), {
    table: 't',
    columns: undefined,
    settings: '',
    format: 'Values',
  });
  assert.equal(inlineInsert("INSERT INTO d.`a ` (`b`, c) SETTINGS x = 1, y = 'it\\'s' FORMAT CSV"), {
    table: 'd.`a `',
    columns: '`b`, c',
    settings: " SETTINGS x = 1, y = 'it\\'s'",
    format: 'CSV',
  });
  for (const statement of [
    'INSERT INTO t SELECT 1 FORMAT CSV',
    "INSERT INTO FUNCTION file('x') FORMAT CSV",
    'INSERT INTO t SETTINGS x = 1 SELECT 1 FORMAT CSV',
    'SELECT 1 FORMAT CSV',
  ]) {
    assert.is(inlineInsert(statement), undefined, statement);
  }
});

test('SET and USE end with their request', () => {
  assert.ok(endsWithRequest('SET ROLE a'));
  assert.ok(endsWithRequest('USE d'));
  assert.not.ok(endsWithRequest('SELECT 1'));
});

test.run();
