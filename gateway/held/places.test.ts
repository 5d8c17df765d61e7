import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { SluiceError } from '../../lib/errors.js';
import { createPlaces } from './places.js';

const refused = (take: () => unknown): string => {
  try {
    take();
  } catch (error) {
    return (error as SluiceError).message;
  }
  return 'taken';
};

test('an owner has so many places, and all owners together; a place that is given back is taken again', () => {
  const places = createPlaces<string>({
    max: 3,
    maxOfOne: 2,
    refuse: (full) => new SluiceError('too_many_calls', full),
  });
  const first = places.take('a');
  places.take('a');
  assert.is(
    refused(() => places.take('a')),
    'owner',
  );
  places.take('b');
  assert.is(
    refused(() => places.take('b')),
    'all',
  );
  assert.is(places.taken, 3);
  first();
  first();
  assert.is(places.taken, 2);
  places.take('b');
  assert.is(
    refused(() => places.take('c')),
    'all',
  );
});

test('a refusal takes nothing', () => {
  const places = createPlaces<object>({ max: 1, maxOfOne: 1, refuse: () => new SluiceError('too_many_calls', 'no') });
  const owner = {};
  for (let i = 0; i < 3; i++) {
    const leave = places.take(owner);
    assert.is(
      refused(() => places.take(owner)),
      'no',
    );
    leave();
    assert.is(places.taken, 0);
  }
});

test.run();
