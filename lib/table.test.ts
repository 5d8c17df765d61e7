import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { padCells, tableLines } from './table.js';

const rows = [
  ['name', 'events', 'note'],
  ['a', '1,000,000', ''],
  ['longest', '7', 'x'],
];

test('columns are as wide as their widest cell, the first ones to the left and the others to the right', () => {
  assert.equal(tableLines(rows), ['name        events  note', 'a        1,000,000', 'longest          7     x']);
  assert.equal(tableLines(rows, 3), ['name     events     note', 'a        1,000,000', 'longest  7          x']);
});

test('cells keep their width, for tables with lines of their own', () => {
  assert.equal(
    padCells(rows, (column) => column !== 1).map((cells) => cells.join('|')),
    ['name   |   events|note', 'a      |1,000,000|    ', 'longest|        7|x   '],
  );
  assert.equal(tableLines([]), []);
});

test.run();
