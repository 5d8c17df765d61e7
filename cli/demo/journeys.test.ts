import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from '../../lib/errors.js';
import { EventType } from '../../sdk-gen/typescript/src/index.js';
import { expandRow, journeySource, parseRow, readJourneys, splitEvenly, toMicros } from './journeys.js';

const header = 'path,total_conversions,total_conversion_value,total_null';
const row = (path: string, conversions: string, value: string, nulls: string) =>
  parseRow({ path, total_conversions: conversions, total_conversion_value: value, total_null: nulls });

async function withFile<T>(content: string | Buffer, use: (file: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-journeys-'));
  try {
    const file = join(folder, 'journeys.csv');
    await writeFile(file, content);
    return await use(file);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function messageOf(content: string | Buffer): Promise<string> {
  return withFile(content, async (file) => {
    try {
      await journeySource(file, 'r', 0);
      return 'no error';
    } catch (error) {
      assert.instance(error, UsageError);
      return (error as Error).message;
    }
  });
}

test('rounds decimal text half up to millionths, digit by digit', () => {
  const cases: readonly (readonly [string, bigint])[] = [
    ['0.244', 244_000n],
    ['2.4019999999999997', 2_402_000n],
    ['0.0000005', 1n],
    ['0.00000049999999999999999999', 0n],
    ['1.0000014999', 1_000_001n],
    ['12', 12_000_000n],
    ['0.5', 500_000n],
    ['7.0', 7_000_000n],
    ['-1.2345675', -1_234_568n],
    ['1.5e-5', 15n],
    ['4.44e-16', 0n],
    ['1.25E3', 1_250_000_000n],
    ['0', 0n],
    ['99999999999999999999.123456', 99_999_999_999_999_999_999_123_456n],
  ];
  for (const [text, micros] of cases) assert.is(toMicros(text), micros, text);
  for (const text of [
    '',
    '.',
    '1,5',
    'NaN',
    '0x10',
    '1e9999',
    '--1',
    '+5',
    ' 12 ',
    '.5',
    '7.',
    '012',
    '1_0',
    '9'.repeat(1_000_000),
  ])
    assert.throws(() => toMicros(text), /decimal/);
});

test('splits a value over conversions with the remainder on the last', () => {
  assert.equal(splitEvenly(10n, 3), { each: 3n, last: 4n });
  assert.equal(splitEvenly(2n, 3), { each: 0n, last: 2n });
  assert.equal(splitEvenly(7n, 1), { each: 7n, last: 7n });
  assert.equal(splitEvenly(0n, 0), { each: 0n, last: 0n });
});

test('a row becomes its journeys: touches in order an hour apart, ending at the conversion', () => {
  const hour = 3_600_000;
  const endMs = 1_000 * hour;
  const events = [
    ...expandRow(row('email > search > email', '2', '0.000003', '1'), { firstJourney: 0, run: 'r', endMs }),
  ];
  assert.is(events.length, 11);
  const first = events.slice(0, 4);
  assert.equal(
    first.map((event) => event.type),
    [EventType.CLICK, EventType.CLICK, EventType.CLICK, EventType.CONVERSION],
  );
  assert.equal(
    first.map((event) => event.touch?.channel),
    ['email', 'search', 'email', undefined],
  );
  assert.equal(
    first.map((event) => (event.occurredAt as Date).getTime() - endMs),
    [-3 * hour, -2 * hour, -hour, 0],
  );
  assert.equal(
    events.filter((event) => event.type === EventType.CONVERSION).map((event) => event.valueMicros),
    [1n, 2n],
  );
  assert.is(new Set(events.map((event) => event.anonymousId)).size, 3);
});

test('reads plain and gzipped files alike, with quotes, empty lines and Windows line ends', async () => {
  const text = `${header}\r\n"a > b",1,0.5,0\r\n\r\nc,0,0.0,3\r\n`;
  for (const content of [text, gzipSync(text)]) {
    await withFile(content, async (file) => {
      const rows = [];
      for await (const one of readJourneys(file)) rows.push(one);
      assert.equal(rows, [
        { channels: ['a', 'b'], conversions: 1, valueMicros: 500_000n, nulls: 0 },
        { channels: ['c'], conversions: 0, valueMicros: 0n, nulls: 3 },
      ]);
      const source = await journeySource(file, 'r', 0);
      assert.is(source.total, 6);
      let events = 0;
      for await (const _ of source.events()) events++;
      assert.is(events, 6);
    });
  }
});

test('a bad file is refused with its line and what to do', async () => {
  assert.match(await messageOf('a,b\n1,2\n'), /lacks path, total_conversions.*It should be "path,/);
  assert.match(await messageOf(`${header}\na > b,1,0.5\n`), /cannot be read as CSV/);
  assert.match(
    await messageOf(`${header}\na,1,0.5,0\na,x,0.5,0\n`),
    /line 3: total_conversions "x" is not a whole number/,
  );
  assert.match(await messageOf(`${header}\na >  > b,1,1,0\n`), /line 2: path has an empty channel/);
  assert.match(await messageOf(`${header}\na,0,1.5,2\n`), /line 2: total_conversion_value without/);
  assert.match(await messageOf(`${header}\na,99999999999,1,0\n`), /line 2: total_conversions/);
  assert.match(await messageOf(`${header}\n`), /holds no journeys/);
  assert.match(await messageOf(''), /no journeys/);
  const cut = gzipSync(`${header}\n${'a > b,1,1,0\n'.repeat(5_000)}`);
  assert.match(await messageOf(cut.subarray(0, cut.length - 20)), /cannot be read as CSV: unexpected end of file/);
  const gone = await journeySource('/nowhere/j.csv', 'r', 0).catch(String);
  assert.match(String(gone), /does not exist. Give the path/);
});

const real = fileURLToPath(new URL('../../../shared/data/journeys.csv.gz', import.meta.url));

test('the real data set becomes exactly 378,209 touches and 19,785 conversions worth 74,802.971584', async () => {
  if (!existsSync(real)) {
    console.log(`skipped: ${real} is not here`);
    return;
  }
  const source = await journeySource(real, 'r', 0);
  let touches = 0;
  let conversions = 0;
  let micros = 0n;
  const people = new Set<string>();
  for await (const event of source.events()) {
    if (event.type === EventType.CLICK) touches++;
    else {
      conversions++;
      micros += event.valueMicros ?? 0n;
    }
    people.add(event.anonymousId ?? '');
  }
  assert.equal({ touches, conversions, micros }, { touches: 378_209, conversions: 19_785, micros: 74_802_971_584n });
  assert.is(people.size, 88_387);
  assert.is(source.total, touches + conversions);
});

test.run();
