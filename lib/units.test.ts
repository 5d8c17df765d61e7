import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { dayMs, GiB, hourMs, KiB, MiB, parseSize, parseTime, sizeText } from './units.js';

test('sizes and times are read in any case, with or without a space and a unit', () => {
  assert.equal(['1024', '1024b', '1.5KiB', '64 mib', '2GIB'].map(parseSize), [1024, 1024, 1536, 64 * MiB, 2 * GiB]);
  assert.equal(['500', '500ms', '10s', '2m', '2 min', '1.5h', '3D'].map(parseTime), [
    500,
    500,
    10_000,
    120_000,
    120_000,
    1.5 * hourMs,
    3 * dayMs,
  ]);
});

test('what is no size or time is not a number', () => {
  for (const text of ['', 'MiB', '1 constructor', '1MB', '-1', '1.2.3KiB', '1e3'])
    assert.ok(Number.isNaN(parseSize(text)), text);
  for (const text of ['', 's', '5 toString', '-1s', '1w']) assert.ok(Number.isNaN(parseTime(text)), text);
});

test('a size is written in the largest unit that leaves a whole number', () => {
  assert.equal([0, 1000, KiB, 1536, 64 * MiB, 3 * GiB].map(sizeText), ['0', '1000', '1KiB', '1536', '64MiB', '3GiB']);
});

test.run();
