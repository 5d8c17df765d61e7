import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createRandom, pick } from '../../testing/batches.js';
import { FieldFault } from './fault.js';
import { floatingNumber, type WholeKind, wholeNumber } from './numbers.js';

const whole = (text: string, kind: WholeKind = 'int64'): bigint => {
  const bytes = Buffer.from(text);
  return BigInt(wholeNumber(bytes, 0, bytes.length, kind));
};
const floating = (text: string, kind: 'double' | 'float' = 'double'): number => {
  const bytes = Buffer.from(text);
  return floatingNumber(bytes, 0, bytes.length, kind);
};
const codeOf = (read: () => unknown): RejectionCode => {
  try {
    read();
  } catch (reason) {
    if (reason instanceof FieldFault) return reason.code;
    throw reason;
  }
  return RejectionCode.UNSPECIFIED;
};

test('whole numbers keep every digit, also as exponents and with a point', () => {
  for (const [text, value] of [
    ['0', 0n],
    ['-0', 0n],
    ['12', 12n],
    ['-12', -12n],
    ['1e3', 1000n],
    ['1E+3', 1000n],
    ['1.0', 1n],
    ['1.50e1', 15n],
    ['100e-2', 1n],
    ['-1.200e2', -120n],
    ['0e999999999999', 0n],
    ['0.000', 0n],
    ['9007199254740993', 9007199254740993n],
    ['9223372036854775807', 9223372036854775807n],
    ['-9223372036854775808', -9223372036854775808n],
    ['9.223372036854775807e18', 9223372036854775807n],
    ['1000000000000000000', 1000000000000000000n],
    [`1${'0'.repeat(30)}e-30`, 1n],
  ] as const) {
    assert.is(whole(text), value, text);
  }
  assert.is(whole('18446744073709551615', 'uint64'), 2n ** 64n - 1n);
});

test('what ProtoJSON does not take for a whole number is refused', () => {
  const wrong = [
    '',
    ' ',
    ' 12',
    '12 ',
    ' 12 ',
    '+5',
    '0x10',
    '0b1',
    '0o7',
    '1_000',
    '012',
    '-012',
    '1.',
    '.5',
    '1e',
    '1e+',
    'NaN',
    'Infinity',
    'true',
    '1,0',
    '--1',
    '-',
    '१',
  ];
  for (const text of [...wrong, '1.5', '1e-1', '15e-1', '0.1', '1e-999999999999']) {
    assert.is(
      codeOf(() => whole(text)),
      RejectionCode.TYPE,
      JSON.stringify(text),
    );
  }
});

test('a number beyond its kind is out of range, and no bigint is made of a long one', () => {
  const beyond: [string, WholeKind][] = [
    ['9223372036854775808', 'int64'],
    ['-9223372036854775809', 'sint64'],
    ['18446744073709551616', 'uint64'],
    ['-1', 'uint64'],
    ['-1', 'uint32'],
    ['4294967296', 'uint32'],
    ['2147483648', 'int32'],
    ['-2147483649', 'sint32'],
    ['1e10', 'sfixed32'],
    ['1e999999999999', 'int64'],
    ['9'.repeat(1_000_000), 'int64'],
    [`1${'0'.repeat(1_000_000)}1`, 'int64'],
    [`1${'0'.repeat(1_000_000)}`, 'int64'],
  ];
  for (const [text, kind] of beyond)
    assert.is(
      codeOf(() => whole(text, kind)),
      RejectionCode.OUT_OF_RANGE,
      text.slice(0, 30),
    );
});

test('doubles are what JSON.parse makes of the same text', () => {
  const random = createRandom(5);
  const digits = (max: number) =>
    Array.from({ length: 1 + Math.floor(random() * max) }, () => pick(random, [...'0123456789'])).join('');
  for (let i = 0; i < 30_000; i++) {
    const int = digits(random() < 0.5 ? 4 : 20).replace(/^0+(?=\d)/, '');
    const text = `${random() < 0.3 ? '-' : ''}${int}${random() < 0.7 ? `.${digits(18)}` : ''}${random() < 0.2 ? `e${random() < 0.5 ? '-' : ''}${digits(2)}` : ''}`;
    assert.ok(Object.is(floating(text), JSON.parse(text)), text);
  }
  assert.ok(Object.is(floating('-0'), -0));
  assert.is(floating('1e-999'), 0);
  assert.ok(Number.isNaN(floating('NaN')));
  assert.is(floating('-Infinity'), Number.NEGATIVE_INFINITY);
  for (const text of [
    '',
    ' 1',
    '1 ',
    '+1',
    '0x1',
    '.5',
    '5.',
    '01',
    '-',
    '1.2.3',
    'nan',
    'infinity',
    '+Infinity',
    '1e',
  ]) {
    assert.is(
      codeOf(() => floating(text)),
      RejectionCode.TYPE,
      text,
    );
  }
  assert.is(
    codeOf(() => floating('1.8e308')),
    RejectionCode.OUT_OF_RANGE,
  );
  assert.is(
    codeOf(() => floating('3.5e38', 'float')),
    RejectionCode.OUT_OF_RANGE,
  );
  assert.is(floating('3.4e38', 'float'), 3.4e38);
});

test.run();
