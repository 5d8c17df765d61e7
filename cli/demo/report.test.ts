import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { describe, differences, formatMicros, type SentFigures, table } from './report.js';
import type { RunFigures } from './run-figures.js';

const sent: SentFigures = {
  events: 5,
  types: new Map([
    ['click', 3],
    ['conversion', 2],
  ]),
  valueMicros: 74_802_971_584n,
};

const stored = (clicks: number, distinct: number, valueMicros = sent.valueMicros): RunFigures => ({
  stored: clicks + 2,
  distinct,
  types: [
    { type: 'click', events: clicks, distinct: clicks, people: 2, valueMicros: 0n },
    { type: 'conversion', events: 2, distinct: 2, people: 2, valueMicros },
  ],
  channels: [{ channel: 'email', impressions: 0, clicks, people: 2 }],
});

test('exact figures differ in nothing', () => {
  assert.equal(differences(sent, stored(3, 5)), []);
});

test('one event too few, one too many, a doubled id and another value are each told', () => {
  assert.equal(differences(sent, stored(2, 4)), ['sent 5 events, stored 4', 'sent 3 of type click, stored 2']);
  assert.equal(differences(sent, stored(4, 5)), [
    'sent 5 events, stored 6',
    'stored 6 events with 5 distinct ids',
    'sent 3 of type click, stored 4',
  ]);
  assert.match(differences(sent, stored(3, 5, 1n)).join(), /sent a total value of 74,802.971584, stored 0.000001/);
  assert.is(differences(sent, { stored: 0, distinct: 0, types: [], channels: [] }).length, 4);
});

test('shows the figures that matter', () => {
  const text = describe(stored(3, 5));
  assert.match(text, /conversion +2 +2 +2 +74,802\.971584/);
  assert.match(text, /email +0 +3 +2/);
  assert.match(text, /3 touches, 2 conversions, total value 74,802\.971584/);
});

test('writes millionths as decimals, and lines columns up', () => {
  assert.is(formatMicros(0n), '0.000000');
  assert.is(formatMicros(-1_500_000n), '-1.500000');
  assert.is(formatMicros(1_234_567_000_001n), '1,234,567.000001');
  assert.is(table(['a', 'n'], [['long', '1']]), '  a     n\n  ----  -\n  long  1');
});

test.run();
