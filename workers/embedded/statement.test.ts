import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { inlineData, parametersOf, quotedName, readFromSpool, withSettings } from './statement.js';

const url = (entries: Record<string, string>): URLSearchParams => new URLSearchParams(entries);

const source = (format: string, structure: string): string => `spool(${format}, ${structure})`;

test('an INSERT that reads input() reads the spool instead, and its FORMAT becomes that of the body', () => {
  assert.is(
    readFromSpool("INSERT INTO t (a) SELECT a FROM input('a String, b Int32') WHERE b = 1 FORMAT Protobuf", source),
    "INSERT INTO t (a) SELECT a FROM spool(Protobuf, 'a String, b Int32') WHERE b = 1",
  );
});

test('quotes, dollars and backslashes in the structure survive the rewriting', () => {
  const structure = "'a Enum8(\\'x\\' = 1, \\'$&\\' = 2)'";
  assert.is(
    readFromSpool(`INSERT INTO t SELECT * FROM input(${structure}) format RowBinary ;\n`, source),
    `INSERT INTO t SELECT * FROM spool(RowBinary, ${structure})`,
  );
});

test('data without input() or without FORMAT is refused with the reason', () => {
  for (const statement of ['INSERT INTO t FORMAT CSV', "INSERT INTO t SELECT a FROM input('a String')"]) {
    assert.throws(() => readFromSpool(statement, source), /input\(…\) and end with FORMAT/);
  }
});

test('settings go to the end of the statement; those of the HTTP layer do not reach the engine', () => {
  const settings = url({
    query: 'ignored',
    query_id: 'q',
    database: 'd',
    param_x: '1',
    enable_http_compression: '1',
    wait_end_of_query: '1',
    max_threads: '1',
    ratio: '-0.5',
    format_schema: "it's\\n",
  });
  assert.is(
    withSettings('SELECT 1 ; ', settings),
    "SELECT 1\nSETTINGS max_threads = 1, ratio = -0.5, format_schema = 'it\\'s\\\\n'",
  );
});

test('a statement without settings stays as it is, and CREATE keeps its own', () => {
  assert.is(withSettings('SELECT 1;', url({ query_id: 'q' })), 'SELECT 1');
  const create = 'CREATE TABLE t (a Int32) ENGINE = Memory';
  assert.is(withSettings(create, url({ max_threads: '1' })), create);
});

test('data behind an INSERT begins after VALUES, or after the line of its FORMAT', () => {
  for (const [statement, data] of [
    ["INSERT INTO t VALUES (1, 'a')", " (1, 'a')"],
    ['INSERT INTO t SETTINGS a = 2 VALUES (1)', ' (1)'],
    ['INSERT INTO t (a, b) FORMAT CSV\n1,"x"\n\n2,"y"', '1,"x"\n\n2,"y"'],
    ['INSERT INTO t FORMAT TSV  \n\tx', '\tx'],
    ["INSERT INTO t (a) SELECT 'VALUES' FROM b", undefined],
    ['SELECT 1 FORMAT CSV', undefined],
  ] as const) {
    assert.is(inlineData(statement), data, statement);
  }
});

test('names are quoted', () => {
  assert.is(quotedName('a`b\\c'), '`a\\`b\\\\c`');
});

test('a name that is no setting cannot smuggle in text', () => {
  assert.throws(() => withSettings('SELECT 1', url({ 'x = 1, y': '2' })), /is not the name of a setting/);
});

test('parameters lose their escapes once', () => {
  assert.equal(parametersOf(url({ param_a: "it's\\n\\t\\\\n", query: 'x', param_b: '\\\\' })), {
    a: "it's\n\t\\n",
    b: '\\',
  });
});

test('settings of the URL join those that a statement has after its FORMAT', () => {
  const url = new URLSearchParams({ max_threads: '1' });
  const cases = {
    'SELECT 1 FORMAT CSV SETTINGS a = 1': 'SELECT 1 FORMAT CSV SETTINGS a = 1\n, max_threads = 1',
    'SELECT 1 FORMAT CSV SETTINGS a = 1 -- done;': 'SELECT 1 FORMAT CSV SETTINGS a = 1 -- done\n, max_threads = 1',
    'SELECT 1 SETTINGS a = 1 FORMAT CSV': 'SELECT 1 SETTINGS a = 1 FORMAT CSV\nSETTINGS max_threads = 1',
    "SELECT ' FORMAT CSV SETTINGS '": "SELECT ' FORMAT CSV SETTINGS '\nSETTINGS max_threads = 1",
    'SELECT 1 /* FORMAT a SETTINGS b */': 'SELECT 1 /* FORMAT a SETTINGS b */\nSETTINGS max_threads = 1',
  };
  for (const [statement, wanted] of Object.entries(cases)) assert.is(withSettings(statement, url), wanted);
});

test.run();
