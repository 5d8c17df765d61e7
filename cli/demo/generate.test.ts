import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type EventInit, EventType } from '../../sdk-gen/typescript/src/index.js';
import { createGeneratedSource } from './generate.js';

const endMs = Date.UTC(2026, 0, 1);

async function all(options: { total: number; seed: number }): Promise<EventInit[]> {
  const events: EventInit[] = [];
  for await (const event of createGeneratedSource({ ...options, run: 'r', endMs }).events()) events.push(event);
  return events;
}

test('gives exactly as many events as asked, the same for the same seed', async () => {
  const one = await all({ total: 5_000, seed: 1 });
  assert.is(one.length, 5_000);
  assert.equal(await all({ total: 5_000, seed: 1 }), one);
  assert.not.equal(await all({ total: 5_000, seed: 2 }), one);
  assert.is((await all({ total: 1, seed: 1 })).length, 1);
});

test('has all that attribution looks at: channels, installs, sessions, conversions with a worth, nothing in the future', async () => {
  const events = await all({ total: 20_000, seed: 3 });
  const types = new Map<EventType | undefined, number>();
  for (const event of events) types.set(event.type, (types.get(event.type) ?? 0) + 1);
  const wanted = ['INSTALL', 'SESSION', 'CLICK', 'IMPRESSION', 'CONVERSION', 'PAGE'] as const;
  for (const type of wanted) assert.ok((types.get(EventType[type]) ?? 0) > 200, type);
  assert.ok(new Set(events.map((event) => event.touch?.channel)).size > 6);
  assert.ok(events.every((event) => (event.occurredAt as Date).getTime() <= endMs));
  assert.ok(events.every((event) => event.type !== EventType.CONVERSION || (event.valueMicros ?? 0n) > 0n));
});

test.run();
