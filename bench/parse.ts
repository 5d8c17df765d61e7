/**
 * What reading a batch costs: the scanner, which validates every rule without decoding, beside protobuf-es decoding and
 * JSON.parse, which validate nothing. One process, one core; the three take turns, so that a busy machine hits all alike.
 *
 *   node --import tsx bench/parse.ts [--events 500] [--rounds 21] [--json]
 *
 * "mixed" batches hold events of all types, fields present or absent at random. "alike" batches hold one event again
 * and again: what the scanner gains from a predictable stream.
 */
import { parseArgs } from 'node:util';
import { fromBinary, toJsonString } from '@bufbuild/protobuf';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import { scanBatch } from '../lib/contract/index.js';
import { encodeBatch, makeBatch, seededRandom } from '../lib/testing/batches.js';

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '500' },
    rounds: { type: 'string', default: '21' },
    json: { type: 'boolean', default: false },
  },
});
const events = Number(values.events);
const rounds = Number(values.rounds);
if (!(events >= 1 && events <= 10_000 && rounds >= 1 && rounds <= 1000)) {
  throw new Error('--events is 1 to 10000, --rounds 1 to 1000');
}

/** How many different batches are cycled through: more events than a branch predictor can learn by heart. */
const batchCount = 64;
/** CPU time of one turn, about. */
const turnMs = 60;

const random = seededRandom(1);
const batches = Array.from({ length: batchCount }, () => makeBatch(random, events));
const mixed = batches.map(encodeBatch);
const alike = batches.map((batch) => {
  const first = batch.events[0]!;
  return encodeBatch({ ...batch, events: Array.from({ length: events }, () => first) });
});
const texts = batches.map((batch) => toJsonString(EventBatchSchema, batch));

/** Events of all turns, so that no reader's work can be left out by the compiler. */
let read = 0;
const scan = (batch: Uint8Array) => {
  read += scanBatch(batch, { maxEvents: 10_000 }).accepted;
};
const cases: { name: string; run: (i: number) => void; runs: number; rates: number[] }[] = [
  { name: 'scan, mixed', run: (i) => scan(mixed[i % batchCount]!), runs: 1, rates: [] },
  { name: 'scan, alike', run: (i) => scan(alike[i % batchCount]!), runs: 1, rates: [] },
  {
    name: 'protobuf-es decode, mixed',
    run: (i) => {
      read += fromBinary(EventBatchSchema, mixed[i % batchCount]!).events.length;
    },
    runs: 1,
    rates: [],
  },
  {
    name: 'JSON.parse, mixed',
    run: (i) => {
      read += (JSON.parse(texts[i % batchCount]!) as { events: unknown[] }).events.length;
    },
    runs: 1,
    rates: [],
  },
];

function cpuMs(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

// Warm, then choose how many batches make a turn.
for (const one of cases) {
  for (const _ of [1, 2, 3]) {
    const ms = cpuMs(() => {
      for (let i = 0; i < one.runs; i++) one.run(i);
    });
    one.runs = Math.max(10, Math.ceil((one.runs * turnMs) / Math.max(ms, 0.5)));
  }
}
for (let round = 0; round < rounds; round++) {
  for (const one of cases) {
    const ms = cpuMs(() => {
      for (let i = 0; i < one.runs; i++) one.run(round + i);
    });
    one.rates.push((one.runs * events * 1000) / ms);
  }
}

const median = (numbers: number[]) => numbers.sort((a, b) => a - b)[numbers.length >> 1]!;
const eventBytes = mixed.reduce((sum, batch) => sum + batch.length, 0) / (batchCount * events);
const result = {
  case: 'parse',
  events_per_batch: events,
  bytes_per_event: Math.round(eventBytes * 10) / 10,
  events_per_cpu_s: Object.fromEntries(cases.map(({ name, rates }) => [name, Math.round(median(rates))])),
};
if (read === 0) throw new Error('nothing was read');
if (values.json) {
  console.log(JSON.stringify(result));
} else {
  console.log(`batches of ${events} events of ${result.bytes_per_event} bytes, median of ${rounds} rounds`);
  for (const [name, rate] of Object.entries(result.events_per_cpu_s)) {
    console.log(`${name.padEnd(28)}${(rate / 1e6).toFixed(2).padStart(7)} M events per CPU-second`);
  }
}
