import { toJson } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Event, EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import { median, rotated } from '../medians.js';
import { patch, patchAttempt, prepare } from '../payload.js';
import { readLogs } from '../peers/otlp-reader.js';
import { plainJson } from '../peers/plain-json.js';
import { toTable } from './command.js';
import { prepareJson, prepareOtlp } from './payloads.js';
import { commonRateOf, cpuRatio, type Standing } from './turns.js';

const options = { events: 20, seed: 7 };

interface Body {
  readonly batchId: string;
  readonly attempt: number;
  readonly events: { eventId: string }[];
}

const bodyOf = (bytes: Buffer): Body => JSON.parse(bytes.toString()) as Body;

test('a JSON request is the same events as the Protobuf request of that seed', () => {
  const json = prepareJson(options);
  const body = bodyOf(json.bytes);
  const batch = makeBatch(createRandom(7), 20);
  assert.equal(body.events, JSON.parse(JSON.stringify(batch.events.map(plainJson))));
  const protobuf = prepare({ target: 'gateway', events: 20, seed: 7, tenant: 'acme' });
  const { start, end } = protobuf.batch;
  assert.equal(protobuf.bytes.subarray(start, end), Buffer.from(encodeBatch(batch)));
});

test('patching keeps a JSON request JSON, with new ids every time', () => {
  const json = prepareJson(options);
  const seen = new Set<string>();
  for (let number = 0; number < 50; number++) {
    patch(json, { run: 9, slot: 3, number }, Date.now());
    patchAttempt(json, 1 + (number % 20), Date.now());
    const body = bodyOf(json.bytes);
    assert.is(body.attempt, Math.min(9, 1 + (number % 20)));
    assert.is(body.batchId, `b-00000009-0003-${number.toString(16).padStart(8, '0')}`);
    for (const { eventId } of body.events) {
      assert.match(eventId, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/);
      seen.add(eventId);
    }
  }
  assert.is(seen.size, 50 * 20);
});

test('an OTLP request is the same events as the Protobuf request of that seed', () => {
  const { bytes } = prepareOtlp({ events: 200, seed: 7 });
  assert.equal([bytes[0], bytes.readUInt32BE(1)], [0, bytes.length - 5]);
  const json = (events: readonly Event[]) => events.map((event) => toJson(EventSchema, event));
  assert.equal(json(readLogs(bytes.subarray(5)).events), json(makeBatch(createRandom(7), 200).events));
});

test('patching keeps an OTLP request as it is, with new ids every time', () => {
  const otlp = prepareOtlp({ events: 20, seed: 7 });
  const before = readLogs(otlp.bytes.subarray(5)).events;
  const seen = new Set<string>();
  for (let number = 0; number < 50; number++) {
    patch(otlp, { run: 9, slot: 3, number }, Date.now());
    patchAttempt(otlp, 1 + (number % 20), Date.now());
    const { resource, events } = readLogs(otlp.bytes.subarray(5));
    assert.is(resource.attempt, String(1 + (number % 20)));
    assert.is(resource.batch_id, `b-00000009-0003-${number.toString(16).padStart(8, '0')}`);
    for (const { eventId } of events) {
      assert.match(eventId, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/);
      seen.add(eventId);
    }
    const others = (all: typeof events) => all.map((event) => ({ ...event, eventId: '' }));
    assert.equal(others(events), others(before));
  }
  assert.is(seen.size, 50 * 20);
});

test('rounds begin with another contender each time', () => {
  assert.equal(rotated(['a', 'b', 'c'], 0), ['a', 'b', 'c']);
  assert.equal(rotated(['a', 'b', 'c'], 4), ['b', 'c', 'a']);
});

test('the common rate is half of the slowest, but for those far behind', () => {
  assert.is(commonRateOf([1_000_000, 100_000, 400_000]), 50_000);
  assert.is(commonRateOf([1_000_000, 100_000, 20_000]), 50_000);
});

function standing(name: string, cpu: readonly number[]): Standing {
  return {
    name,
    summary: '',
    acked_events_per_s: 1_000_000 / (cpu[0] as number),
    cpu_s_per_million: { server: median(cpu), nats: 0.2, load: 0.3 },
    rss_mib: 100,
    ack_ms: { p50: 1, p95: 2, p99: 3 },
    open_rate: 40_000,
    wire_bytes_per_event: 150,
    log_bytes_per_event: 151,
    rounds: cpu.map((server) => ({ acked_events_per_s: 1, server_cpu_s_per_million: server })),
  };
}

test('CPU ratios are those inside a round: a slow round of the machine does not count', () => {
  // The machine is three times slower in the second round.
  const all = [standing('sluice', [0.5, 1.5, 0.5]), standing('other', [2, 6, 2])];
  assert.is(cpuRatio(all, 'other'), 4);
  assert.is(cpuRatio(all, 'sluice'), 1);
});

test('the table sets everybody beside ours, and the quoted rows apart', () => {
  const table = toTable([standing('sluice', [0.5]), standing('other', [2])], 40_000);
  const row = table.split('\n').find((line) => line.startsWith('other'));
  assert.match(row ?? '', /500,000 {2}\(0\.25\) +2\.00 {2}\(4\.00\)/);
  assert.match(table, /quoted: .*350,000 events\/s \(0\.17\)/);
  assert.match(table, /not measured here/);
  assert.throws(() => toTable([standing('other', [2])], 1), /needs sluice/);
});

test.run();
