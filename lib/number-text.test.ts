import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { parseNumber, parseWhole } from './number-text.js';

const none = [
  '',
  ' ',
  ' 12',
  '12 ',
  '+5',
  '0x10',
  '0b1',
  '012',
  '-012',
  '1_000',
  '.5',
  '5.',
  '-',
  '1e',
  'NaN',
  'Infinity',
  '१',
  '1,5',
  '12\n',
];

test('whole numbers are plain digits', () => {
  for (const [text, value] of [
    ['0', 0],
    ['-0', 0],
    ['12', 12],
    ['-7', -7],
    ['9007199254740991', 9007199254740991],
  ] as const) {
    assert.ok(Object.is(parseWhole(text), value), text);
  }
  for (const text of [...none, '1.0', '1e3', '9007199254740992', '9'.repeat(400)])
    assert.is(parseWhole(text), undefined, text);
});

test('other numbers have the form of JSON', () => {
  for (const [text, value] of [
    ['0', 0],
    ['-0.5', -0.5],
    ['0.01', 0.01],
    ['1e3', 1000],
    ['2.5E-1', 0.25],
  ] as const) {
    assert.is(parseNumber(text), value, text);
  }
  for (const text of [...none, '1e999']) assert.is(parseNumber(text), undefined, text);
});

test.run();
