import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { SeenNames } from './seen-names.js';

const add = (names: SeenNames, name: string, mark = 0, seed = 0): boolean => {
  const padded = Buffer.from(`"${name}"`);
  return names.add(padded, 1, padded.length - 1, mark, seed);
};

test('a name is new once in its object, whatever objects are around it', () => {
  const names = new SeenNames();
  assert.ok(add(names, 'a'));
  assert.ok(add(names, 'b'));
  assert.not(add(names, 'a'));
  const mark = names.size;
  assert.ok(add(names, 'a', mark));
  assert.not(add(names, 'a', mark));
  names.size = mark;
  assert.not(add(names, 'b'));
  assert.ok(add(names, 'a', mark));
});

test('names that are nearly the same are others: one hash, a part of another, none at all', () => {
  const names = new SeenNames();
  // Each half has one hash with the factor 31.
  for (const name of ['AaAa', 'AaBB', 'BBAa', 'BBBB', 'Aa', 'A', '', 'é', 'e']) assert.ok(add(names, name), name);
  for (const name of ['AaAa', 'BBBB', '', 'é']) assert.not(add(names, name), name);
});

test('the same name with another seed is another', () => {
  const names = new SeenNames();
  assert.ok(add(names, 'colour', 0, 1));
  assert.ok(add(names, 'colour', 0, 2));
  assert.not(add(names, 'colour', 0, 2));
});

test.run();
