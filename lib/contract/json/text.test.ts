import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { SluiceError } from '../../errors.js';
import { createRandom, integer, pick } from '../../testing/batches.js';
import { FieldFault } from './fault.js';
import { JsonText } from './text.js';

/** Whether the text is JSON to us: read as one value and skipped. */
function isJson(bytes: Uint8Array, strict = false): boolean {
  const text = new JsonText(bytes);
  try {
    text.skip(strict);
    text.finish();
    return true;
  } catch (reason) {
    if (reason instanceof SluiceError && reason.code === 'json_invalid') return false;
    throw reason;
  }
}

function parses(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

const valid = [
  'null',
  'true',
  'false',
  '0',
  '-0',
  '-1',
  '1.5',
  '0.0',
  '1e5',
  '1E+5',
  '1e-5',
  '-0.1e2',
  '123456789012345678901234567890',
  '""',
  '"a"',
  '"\\u0061"',
  '"\\ud83d\\ude00"',
  '"\\"\\\\\\/\\b\\f\\n\\r\\t"',
  '"\u007f"',
  '"é"',
  '"\u2028"',
  '"\\u0000"',
  '"\\ud800"',
  '[]',
  '[ ]',
  '[1]',
  '[1,2]',
  '[[],{}]',
  '{}',
  '{ }',
  '{"a":1}',
  '{"a":{"b":[{}]}}',
  ' \t\r\n1\n',
  '{"":0}',
  '{"a":1,"a":2}',
  `${'['.repeat(3000)}${']'.repeat(3000)}`,
];
const invalid = [
  '',
  ' ',
  'nul',
  'nulll',
  'True',
  'NaN',
  'Infinity',
  '-Infinity',
  'undefined',
  '+1',
  '01',
  '-01',
  '1.',
  '.5',
  '-.5',
  '1e',
  '1e+',
  '0x10',
  '1_000',
  '--1',
  '-',
  '1 2',
  "'a'",
  'a',
  '"',
  '"a',
  '"\\x"',
  '"\\u12"',
  '"\\u12g4"',
  '"\\',
  '"\n"',
  '"\t"',
  '"\u0000"',
  '[',
  ']',
  '[1',
  '[1,',
  '[1,]',
  '[,1]',
  '[1 2]',
  '[1;2]',
  '{',
  '}',
  '{"a"',
  '{"a":',
  '{"a":1',
  '{"a":1,',
  '{"a":1,}',
  '{,}',
  '{a:1}',
  '{1:1}',
  '{"a" 1}',
  '{"a":1 "b":2}',
  '[}',
  '{]',
  '[{]}',
  '{}{}',
  '1,',
  '// c\n1',
  '/**/1',
  '[1]]',
  '\u00a01',
  '1\u00a0',
  '\u000b1',
  '\f1',
  '"a"b',
  'tru',
  'fals',
  '{"a":1}}',
  '[""',
  '["a\u0001"]',
  '{"a\u0001":1}',
  `${'['.repeat(3000)}${']'.repeat(2999)}`,
  `${'{"a":'.repeat(500)}1${'}'.repeat(499)}`,
];

test('takes what JSON.parse takes, and refuses what it refuses', () => {
  for (const text of valid) {
    assert.ok(parses(text), text);
    assert.ok(isJson(Buffer.from(text)), text.slice(0, 60));
  }
  for (const text of invalid) {
    assert.not(parses(text), text);
    assert.not(isJson(Buffer.from(text)), text.slice(0, 60));
  }
});

/** A random value as text, with white space and escapes. */
function randomJson(random: () => number, depth: number): string {
  const space = () => (random() < 0.2 ? pick(random, [' ', '\n', '\t', '\r\n ']) : '');
  const kind = integer(random, 0, depth > 0 ? 7 : 5);
  if (kind === 6 || kind === 7) {
    const items = Array.from({ length: integer(random, 0, 3) }, () => {
      const value = `${space()}${randomJson(random, depth - 1)}${space()}`;
      return kind === 6 ? value : `${space()}${JSON.stringify(randomText(random))}${space()}:${value}`;
    });
    return kind === 6 ? `[${items.join(',')}${space()}]` : `{${items.join(',')}${space()}}`;
  }
  if (kind <= 1) return JSON.stringify(randomText(random));
  return pick(random, ['null', 'true', 'false', '0', '-1', '12.50', '1e9', '-0.25E-3', '9007199254740993']);
}

const randomText = (random: () => number): string =>
  Array.from({ length: integer(random, 0, 5) }, () =>
    pick(random, ['a', 'é', '"', '\\', '\n', '😀', '\u0007', '漢']),
  ).join('');

test('agrees with JSON.parse on thirty thousand broken texts', () => {
  const random = createRandom(11);
  const bits = [
    '"',
    '\\',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '0',
    '1',
    '-',
    '+',
    '.',
    'e',
    ' ',
    '\n',
    'u',
    'null',
    'tru',
    '\u0001',
    'é',
    '\\u',
    '"a":',
  ];
  for (let i = 0; i < 30_000; i++) {
    let text = randomJson(random, 3);
    for (let cuts = integer(random, 0, 2); cuts > 0; cuts--) {
      const at = integer(random, 0, text.length);
      const gone = integer(random, 0, 2);
      text = text.slice(0, at) + (random() < 0.7 ? pick(random, bits) : '') + text.slice(at + gone);
    }
    // A cut within a surrogate pair has no UTF-8 form.
    if (/[\ud800-\udfff]/.test(text.replace(/[\ud800-\udbff][\udc00-\udfff]/g, ''))) continue;
    assert.is(isJson(Buffer.from(text)), parses(text), JSON.stringify(text));
  }
});

test('reads a string as JSON.parse does, whatever its escapes', () => {
  const random = createRandom(12);
  for (let i = 0; i < 5_000; i++) {
    const wanted = randomText(random);
    let json = JSON.stringify(wanted);
    if (random() < 0.5) {
      json = `"${[...wanted].map((c) => [...Array(c.length).keys()].map((k) => `\\u${c.charCodeAt(k).toString(16).padStart(4, '0')}`).join('')).join('')}"`;
    }
    const text = new JsonText(Buffer.from(json));
    text.next();
    text.string();
    assert.is(text.decoded(), wanted, json);
    text.finish();
  }
});

test('tells where a text stops being JSON', () => {
  const failed = (text: string): string => {
    try {
      new JsonText(Buffer.from(text)).skip(false);
    } catch (reason) {
      return (reason as Error).message;
    }
    throw new Error('it did not fail');
  };
  assert.is(failed('{"a":1,}'), 'The body is not JSON: at byte 7 there is "}" where a key in quotes should be.');
  assert.is(failed('[1,'), 'The body is not JSON: at byte 3 the body ends where a value should be.');
  assert.is(
    failed('"a\u0001"'),
    'The body is not JSON: at byte 2 there is the byte 0x01 where the rest of a string should be.',
  );
});

test('half of a surrogate pair is a fault of the value, however it is written', () => {
  for (const text of [
    '"\\ud800"',
    '"\\udc00"',
    '"\\ud800\\u0061"',
    '"\\ud800x"',
    '"\\udc00\\ud800"',
    '"\\ud800\\ud800"',
  ]) {
    const reader = new JsonText(Buffer.from(text));
    reader.next();
    assert.throws(
      () => reader.string(),
      (reason: unknown) => reason instanceof FieldFault && /half of a surrogate/.test(reason.message),
    );
  }
});

test('a strict skip refuses keys that come twice, text that is no UTF-8, and depth, all without using the stack', () => {
  const fault = (bytes: Uint8Array): string => {
    try {
      new JsonText(bytes).skip(true);
    } catch (reason) {
      if (reason instanceof FieldFault) return reason.message;
      throw reason;
    }
    return '';
  };
  assert.match(fault(Buffer.from('[{"a":1,"b":{"c":1,"c":2}}]')), /"c" comes twice/);
  assert.match(fault(Buffer.from('{"a":1,"\\u0061":2}')), /"a" comes twice/);
  assert.is(fault(Buffer.from('[{"a":1},{"a":1},{"b":{"a":1},"a":{"a":2}}]')), '');
  assert.match(fault(Uint8Array.of(0x22, 0xff, 0x22)), /UTF-8/);
  assert.match(fault(Buffer.from(`${'['.repeat(101)}${']'.repeat(101)}`)), /100 levels/);
  const million = Buffer.from(`${'[{"a":'.repeat(500_000)}1${'}]'.repeat(500_000)}`);
  assert.ok(isJson(million));
});

test('a byte order mark at the start is skipped, and nowhere else', () => {
  assert.ok(isJson(Buffer.from('\ufeff{}')));
  assert.not(isJson(Buffer.from('{}\ufeff')));
  assert.not(isJson(Buffer.from('\ufeff\ufeff{}')));
});

test.run();
