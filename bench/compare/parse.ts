/**
 * `npm run bench -- parse`: what it costs to read a batch, inside one process, no servers. The wire scan that the gateway
 * does, with all of the contract's rules, beside what others would do first, without any rule: JSON.parse, protobuf-es,
 * protobufjs. All take turns within a round; CPU time, medians.
 *
 * "mixed" batches hold events of all types, fields present or absent at random. "alike" batches hold one event again
 * and again: what the scanner gains from a predictable stream.
 */
import { fromBinary } from '@bufbuild/protobuf';
import { Command } from 'commander';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import { scanBatch } from '../../lib/contract/index.js';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import { median, ratioOfRounds } from '../medians.js';
import { positive } from '../options.js';
import { compileChecks } from '../peers/object-checks.js';
import { plainJson } from '../peers/plain-json.js';
import { loadProto } from '../peers/protobufjs-contract.js';
import { type Reader, readInTurn } from '../readers-in-turn.js';

interface CommandLine {
  readonly events: number;
  readonly rounds: number;
  readonly json: boolean;
}

/** How many different batches are cycled through: more events than a branch predictor can learn by heart. */
const batchCount = 64;
const baseline = 'JSON.parse, mixed';

function makeReaders(events: number): { readers: Reader[]; bytesPerEvent: number; jsonBytesPerEvent: number } {
  const random = createRandom(1);
  const batches = Array.from({ length: batchCount }, () => makeBatch(random, events));
  const mixed = batches.map(encodeBatch);
  const alike = batches.map((batch) => encodeBatch({ ...batch, events: Array(events).fill(batch.events[0]) }));
  const texts = batches.map((batch) => JSON.stringify({ events: batch.events.map(plainJson) }));
  const bodies = texts.map((text) => Buffer.from(text));
  const type = loadProto().lookupType('sluice.event.v1.EventBatch');
  const check = compileChecks();
  const at = <T>(list: readonly T[], i: number): T => list[i % batchCount] as T;
  const checked = (list: readonly object[]): number =>
    list.reduce((n, event) => n + (check(event) === undefined ? 1 : 0), 0);
  const scan = (bytes: Uint8Array) => scanBatch(bytes, { maxEvents: 10_000 }).accepted;
  const parse = (text: string) => (JSON.parse(text) as { events: [] }).events.length;
  const decode = (bytes: Uint8Array) => (type.decode(bytes) as unknown as { events: object[] }).events;
  const decodeEs = (bytes: Uint8Array) => fromBinary(EventBatchSchema, bytes).events;
  const by: Readonly<Record<string, (i: number) => number>> = {
    'scan, mixed': (i) => scan(at(mixed, i)),
    'scan, alike': (i) => scan(at(alike, i)),
    [baseline]: (i) => parse(at(texts, i)),
    'JSON.parse of bytes, mixed': (i) => parse(at(bodies, i).toString()),
    'protobufjs decode, mixed': (i) => decode(at(mixed, i)).length,
    'protobufjs decode and checks': (i) => checked(decode(at(mixed, i))),
    'protobuf-es decode, mixed': (i) => decodeEs(at(mixed, i)).length,
    'protobuf-es decode and checks': (i) => checked(decodeEs(at(mixed, i))),
  };
  const perEvent = (list: readonly { length: number }[]) =>
    list.reduce((n, one) => n + one.length, 0) / (batchCount * events);
  const readers = Object.entries(by).map(([name, read]) => ({ name, read }));
  return { readers, bytesPerEvent: perEvent(mixed), jsonBytesPerEvent: perEvent(bodies) };
}

function run({ events, rounds, json }: CommandLine): void {
  const { readers, bytesPerEvent, jsonBytesPerEvent } = makeReaders(events);
  const rates = readInTurn(readers, rounds, (round) => {
    process.stderr.write(`parse: round ${round + 1} of ${rounds}\n`);
  });
  const base = rates[readers.findIndex(({ name }) => name === baseline)]!;
  const rows = readers.map(({ name }, r) => ({ name, rate: median(rates[r]!), ratio: ratioOfRounds(rates[r]!, base) }));
  const sizes = `${bytesPerEvent.toFixed(1)} bytes (JSON ${jsonBytesPerEvent.toFixed(1)})`;
  process.stdout.write(`batches of ${events} events of ${sizes}, ${rounds} rounds\n`);
  for (const { name, rate, ratio } of rows) {
    const [millions, times] = [rate / 1e6, ratio].map((value) => value.toFixed(2).padStart(7));
    process.stdout.write(`${name.padEnd(32)}${millions} M events per CPU-second ${times} × JSON.parse\n`);
  }
  if (!json) return;
  const of = (pick: (row: (typeof rows)[number]) => number) =>
    Object.fromEntries(rows.map((row) => [row.name, Number(pick(row).toPrecision(4))]));
  const shape = { case: 'parse', events_per_batch: events, rounds };
  const bytes = { bytes_per_event: bytesPerEvent, json_bytes_per_event: jsonBytesPerEvent };
  const figures = { events_per_cpu_s: of((row) => row.rate), ratio_to_json_parse: of((row) => row.ratio) };
  process.stdout.write(`${JSON.stringify({ ...shape, ...bytes, ...figures })}\n`);
}

export const parseCommand = (): Command =>
  new Command('parse')
    .description(
      'events read per CPU-second: the wire scan, JSON.parse, protobuf-es, protobufjs; one process, no servers',
    )
    .option('--events <n>', 'events of a batch', positive(10_000), 500)
    .option('--rounds <n>', 'rounds, of which the median counts', positive(1_000), 15)
    .option('--json', 'end standard output with one line of JSON', false)
    .addHelpText(
      'after',
      `
The scan checks every rule of the contract; the decoders and JSON.parse check none, but for "and checks", which adds the
field rules on the decoded objects. "alike": one event again and again. Ratios: to JSON.parse of a text, inside a round.`,
    )
    .action(run);
