import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom, integer } from './testing/batches.js';
import { isDate, parseTimestamp } from './timestamp.js';

const parse = (text: string) => {
  const bytes = Buffer.from(text);
  return parseTimestamp(bytes, 0, bytes.length);
};

test('reads RFC 3339 to the nanosecond, with offsets', () => {
  for (const [text, seconds, nanos] of [
    ['1970-01-01T00:00:00Z', 0, 0],
    ['1969-12-31T23:59:59.999999999Z', -1, 999_999_999],
    ['2026-01-31T12:00:00.5Z', 1_769_860_800, 500_000_000],
    ['2026-01-31T12:00:00.000000001+02:00', 1_769_853_600, 1],
    ['2026-01-31T12:00:00-00:30', 1_769_862_600, 0],
    ['2024-02-29T00:00:00Z', 1_709_164_800, 0],
    ['2000-02-29T00:00:00Z', 951_782_400, 0],
    ['0001-01-01T00:00:00Z', -62_135_596_800, 0],
    ['9999-12-31T23:59:59.999999999Z', 253_402_300_799, 999_999_999],
  ] as const) {
    assert.equal(parse(text), { seconds, nanos }, text);
  }
});

test('agrees with Date on days that exist', () => {
  const random = createRandom(2);
  for (let i = 0; i < 20_000; i++) {
    const ms = integer(random, -62_135_596_800_000, 253_402_300_799_000);
    const text = new Date(ms).toISOString();
    assert.is((parse(text)?.seconds ?? Number.NaN) * 1_000 + (parse(text)?.nanos ?? 0) / 1e6, ms, text);
  }
});

test('what is no time is none, and never another one', () => {
  for (const text of [
    '2026-02-30T00:00:00Z',
    '2025-02-29T00:00:00Z',
    '1900-02-29T00:00:00Z',
    '2026-04-31T00:00:00Z',
    '2026-13-01T00:00:00Z',
    '2026-00-01T00:00:00Z',
    '2026-01-00T00:00:00Z',
    '2026-01-32T00:00:00Z',
    '2026-01-01T24:00:00Z',
    '2026-01-01T23:60:00Z',
    '2026-06-30T23:59:60Z',
    '2026-01-01t00:00:00Z',
    '2026-01-01T00:00:00z',
    '2026-01-01 00:00:00Z',
    '2026-01-01T00:00:00',
    '2026-01-01T00:00Z',
    '2026-01-01',
    '2026-01-01T00:00:00.Z',
    '2026-01-01T00:00:00.1234567890Z',
    '2026-01-01T00:00:00,5Z',
    '2026-01-01T00:00:00+24:00',
    '2026-01-01T00:00:00+01:60',
    '2026-01-01T00:00:00+0100',
    '2026-01-01T00:00:00+01',
    '2026-01-01T00:00:00Z ',
    ' 2026-01-01T00:00:00Z',
    '+02026-01-01T00:00:00Z',
    '26-01-01T00:00:00Z',
    '0000-01-01T00:00:00Z',
    '0001-01-01T00:00:00+00:01',
    '9999-12-31T23:59:59-00:01',
    '10000-01-01T00:00:00Z',
    '2026-1-1T00:00:00Z',
    '2026-01-01T0:00:00Z',
    'yesterday',
    '',
    '1769860800',
    '2026-01-01T00:00:00ZZ',
    '2026-W01-1T00:00:00Z',
    '-026-01-01T00:00:00Z',
    '2026-01-01T-1:00:00Z',
    '२०२६-01-01T00:00:00Z',
  ]) {
    assert.is(parse(text), undefined, text);
  }
});

test('knows which days there are', () => {
  for (const text of ['2026-01-31', '2024-02-29', '0001-01-01', '9999-12-31']) assert.ok(isDate(text), text);
  for (const text of ['2026-02-30', '2026-02-29', '2026-1-1', '2026-13-01', '0000-01-01', '2026-01-31 ', ''])
    assert.not(isDate(text), text);
});

test.run();
