import { create, toBinary } from '@bufbuild/protobuf';
import { sizeDelimitedEncode } from '@bufbuild/protobuf/wire';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { createRandom, makeBatch } from '../../lib/testing/batches.js';
import type { LogMessage } from '../reader/log-message.js';
import { type BlockLimits, contentOf, createCutter, maxLinks, maxSpanMs } from './block.js';

const limits: BlockLimits = { rows: 100, bytes: 1_000_000, delayMs: 1_000 };
const noon = Date.parse('2026-03-01T12:00:00Z');

/** Metadata first, events last, as the gateway writes it. */
function stored(events: number, more: { traceparent?: string; count?: number; attempt?: number } = {}): Uint8Array {
  const meta = create(StoredBatchSchema, {
    tenant: 'acme',
    batchId: 'b-1',
    attempt: more.attempt ?? 1,
    receivedAt: { seconds: 1_767_225_600n, nanos: 5 },
    eventCount: more.count ?? events,
    contract: 'c0ffee',
    traceparent: more.traceparent ?? '',
  });
  const data = create(StoredBatchSchema, { events: makeBatch(createRandom(events), events).events });
  const bytes = Buffer.concat([toBinary(StoredBatchSchema, meta), toBinary(StoredBatchSchema, data)]);
  const size: number[] = [];
  for (let rest = bytes.length; ; rest >>>= 7) {
    size.push(rest < 128 ? rest : (rest & 127) | 128);
    if (rest < 128) break;
  }
  return Buffer.concat([Uint8Array.from(size), bytes]);
}

const message = (sequence: number, data: Uint8Array, timeMs = noon): LogMessage => ({ sequence, timeMs, data });

test('a block knows its rows, batches, ends and day without decoding an event', () => {
  const cutter = createCutter(limits);
  assert.ok(cutter.add(message(5, Buffer.concat([stored(3), stored(4)])), 0));
  assert.ok(cutter.add(message(9, stored(2), noon + maxSpanMs), 0));
  const block = cutter.cut('delay');
  assert.equal(
    { ...block, messages: block.messages.length, bytes: 0 },
    {
      lo: 5,
      hi: 9,
      day: '2026-03-01',
      rows: 9,
      duplicate: 0,
      dead: 0,
      batches: 3,
      bytes: 0,
      messages: 2,
      sequences: [5, 9],
      batchIndexes: [0, 0],
      retried: false,
      unframed: false,
      unknownFields: false,
      reason: 'delay',
      firstTimeMs: noon,
      lastTimeMs: noon + maxSpanMs,
      traces: [],
    },
  );
});

test('a batch encoded by the library reads the same as one framed by hand', () => {
  for (const eventCount of [7, 0]) {
    const batch = create(StoredBatchSchema, { attempt: 1, eventCount, events: makeBatch(createRandom(1), 7).events });
    // The library writes events first: the count is then not seen in time, and they are counted one by one.
    const { rows, retried } = contentOf(sizeDelimitedEncode(StoredBatchSchema, batch));
    assert.equal([rows, retried], [7, false]);
  }
});

test('a message that would pass the row limit begins the next block, and rows alone never exceed it', () => {
  const cutter = createCutter(limits);
  assert.ok(cutter.add(message(1, stored(60)), 0));
  assert.is(cutter.full(), undefined);
  assert.not.ok(cutter.add(message(2, stored(60)), 0));
  assert.is(cutter.full(), 'rows');
  assert.is(cutter.cut('rows').hi, 1);
  const alone = createCutter(limits);
  assert.ok(alone.add(message(1, stored(150)), 0));
  assert.is(alone.full(), 'rows');
});

test('the byte limit cuts likewise', () => {
  const data = stored(10);
  const cutter = createCutter({ ...limits, bytes: data.length * 2 + 1 });
  assert.ok(cutter.add(message(1, data), 0));
  assert.ok(cutter.add(message(2, data), 0));
  assert.not.ok(cutter.add(message(3, data), 0));
  assert.is(cutter.full(), 'bytes');
});

test('age counts from the first message, whether it has rows or not', () => {
  const cutter = createCutter(limits);
  assert.is(cutter.dueMs, Number.POSITIVE_INFINITY);
  assert.throws(() => cutter.cut('delay'), /empty/);
  cutter.add(message(1, stored(0)), 500);
  cutter.add(message(2, stored(1)), 900);
  assert.is(cutter.dueMs, 1_500);
  const block = cutter.cut('delay');
  assert.equal([block.lo, block.hi, block.rows], [1, 2, 1]);
});

test('messages without rows fill a block by their bytes, so that memory is bounded', () => {
  const cutter = createCutter({ ...limits, bytes: 1_000 });
  let sequence = 1;
  while (cutter.add(message(sequence, stored(0)), 0)) sequence++;
  assert.is(cutter.full(), 'bytes');
  assert.is(cutter.cut('bytes').rows, 0);
});

test("a block spans an hour of the log's time at most: its rows lie in the partition of its first day", () => {
  const cutter = createCutter(limits);
  assert.ok(cutter.add(message(1, stored(1)), 0));
  assert.ok(cutter.add(message(2, stored(1), noon + maxSpanMs), 0));
  assert.not.ok(cutter.add(message(3, stored(1), noon + maxSpanMs + 1), 0));
  assert.is(cutter.full(), 'delay');
});

test('a block knows whether a batch was sent again, and whether a message is a sequence of batches (LOAD-5, LOAD-6)', () => {
  const first = createCutter(limits);
  first.add(message(1, Buffer.concat([stored(2), stored(3)])), 0);
  assert.equal([first.cut('delay').retried, contentOf(stored(2)).retried], [false, false]);
  // No attempt at all: unknown which it is.
  for (const attempt of [0, 2, 7, 4_294_967_295]) {
    const cutter = createCutter(limits);
    cutter.add(message(1, stored(2)), 0);
    cutter.add(message(2, Buffer.concat([stored(1), stored(1, { attempt }), stored(1)])), 0);
    const block = cutter.cut('delay');
    assert.equal([block.retried, block.unframed, block.rows], [true, false, 5], String(attempt));
  }
});

test('bytes that are no batch count as a row and are told apart, so that somebody looks at them (LOAD-6)', () => {
  const good = stored(2);
  const bad = [[0xff], [5, 1], [3, 0x0b, 1, 1], [2, 0x3a, 9], Array.from({ length: 12 }, () => 0xff), [2, 0x08, 1]];
  for (const data of bad) {
    assert.equal(contentOf(Uint8Array.from(data)).unframed, true, String(data));
    const cutter = createCutter(limits);
    cutter.add(message(1, Buffer.concat([good, Uint8Array.from(data)])), 0);
    const block = cutter.cut('delay');
    assert.ok(block.unframed && block.rows >= 3, String(data));
  }
  assert.equal(contentOf(good.subarray(0, good.length - 1)).unframed, true);
  assert.equal(contentOf(good).unframed, false);
  assert.equal(contentOf(new Uint8Array(0)), {
    rows: 0,
    batches: 0,
    retried: false,
    unframed: false,
    unknownFields: false,
  });
});

test('only sampled traces become links, and not too many', () => {
  const trace = (flags: string) => `00-${'a'.repeat(32)}-${'b'.repeat(16)}-${flags}`;
  const cutter = createCutter({ ...limits, rows: 10_000 });
  cutter.add(message(1, stored(1, { traceparent: trace('00') })), 0);
  cutter.add(message(2, stored(1, { traceparent: trace('01') })), 0);
  cutter.add(message(3, stored(1, { traceparent: 'nonsense' })), 0);
  assert.equal(cutter.cut('rows').traces, [trace('01')]);
  for (let i = 0; i < 2 * maxLinks; i++) cutter.add(message(4 + i, stored(1, { traceparent: trace('01') })), 0);
  assert.is(cutter.cut('rows').traces.length, maxLinks);
});

test.run();
