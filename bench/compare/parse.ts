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
import { encodeBatch, makeBatch, seededRandom } from '../../lib/testing/batches.js';
import { positive } from '../options.js';
import { compileChecks } from '../peers/object-checks.js';
import { plainJson } from '../peers/plain-json.js';
import { loadProto } from '../peers/protobufjs-contract.js';
import { median } from './turns.js';

interface CommandLine {
  readonly events: number;
  readonly rounds: number;
  readonly json: boolean;
}

interface Reader {
  readonly name: string;
  run(i: number): void;
}

/** How many different batches are cycled through: more events than a branch predictor can learn by heart. */
const batchCount = 64;
/** CPU time of one turn, about. */
const turnMs = 40;

/** Events of all turns, so that no reader's work can be left out by the compiler. */
let read = 0;

function makeReaders(events: number): { readers: Reader[]; bytesPerEvent: number; jsonBytesPerEvent: number } {
  const random = seededRandom(1);
  const batches = Array.from({ length: batchCount }, () => makeBatch(random, events));
  const mixed = batches.map(encodeBatch);
  const alike = batches.map((batch) => {
    const [first] = batch.events;
    return encodeBatch({ ...batch, events: Array.from({ length: events }, () => first as never) });
  });
  const texts = batches.map((batch) => JSON.stringify({ events: batch.events.map(plainJson) }));
  const bodies = texts.map((text) => Buffer.from(text));
  const type = loadProto().lookupType('sluice.event.v1.EventBatch');
  const check = compileChecks();
  const at = <T>(list: readonly T[], i: number): T => list[i % batchCount] as T;
  const checked = (list: readonly object[]): number =>
    list.reduce((n, event) => n + (check(event) === undefined ? 1 : 0), 0);
  const reader = (name: string, count: (i: number) => number): Reader => ({
    name,
    run: (i) => {
      read += count(i);
    },
  });
  const readers = [
    reader('scan, mixed', (i) => scanBatch(at(mixed, i), { maxEvents: 10_000 }).accepted),
    reader('scan, alike', (i) => scanBatch(at(alike, i), { maxEvents: 10_000 }).accepted),
    reader('JSON.parse, mixed', (i) => (JSON.parse(at(texts, i)) as { events: [] }).events.length),
    reader('JSON.parse of bytes, mixed', (i) => (JSON.parse(at(bodies, i).toString()) as { events: [] }).events.length),
    reader('protobufjs decode, mixed', (i) => (type.decode(at(mixed, i)) as unknown as { events: [] }).events.length),
    reader('protobufjs decode and checks', (i) =>
      checked((type.decode(at(mixed, i)) as unknown as { events: object[] }).events),
    ),
    reader('protobuf-es decode, mixed', (i) => fromBinary(EventBatchSchema, at(mixed, i)).events.length),
    reader('protobuf-es decode and checks', (i) => checked(fromBinary(EventBatchSchema, at(mixed, i)).events)),
  ];
  const bytes = (list: readonly { length: number }[]) =>
    list.reduce((n, one) => n + one.length, 0) / (batchCount * events);
  return { readers, bytesPerEvent: bytes(mixed), jsonBytesPerEvent: bytes(bodies) };
}

function cpuMs(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

export interface ParseResult {
  readonly case: 'parse';
  readonly events_per_batch: number;
  readonly rounds: number;
  readonly bytes_per_event: number;
  readonly json_bytes_per_event: number;
  /** By reader, medians. */
  readonly events_per_cpu_s: Readonly<Record<string, number>>;
  /** How many times as many as JSON.parse of text: the median of ratios inside a round. */
  readonly ratio_to_json_parse: Readonly<Record<string, number>>;
}

/** Reads batches by every reader in turn. */
export function measureParse(
  events: number,
  rounds: number,
  progress: (line: string) => void = () => undefined,
): ParseResult {
  const { readers, bytesPerEvent, jsonBytesPerEvent } = makeReaders(events);
  // Warm, then choose how many batches make a turn.
  const runs = readers.map((one) => {
    let count = 1;
    for (const _ of [1, 2, 3]) {
      const ms = cpuMs(() => {
        for (let i = 0; i < count; i++) one.run(i);
      });
      count = Math.max(4, Math.ceil((count * turnMs) / Math.max(ms, 0.5)));
    }
    return count;
  });
  const rates = readers.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    readers.forEach((one, r) => {
      const count = runs[r] as number;
      const ms = cpuMs(() => {
        for (let i = 0; i < count; i++) one.run(round + i);
      });
      rates[r]?.push((count * events * 1000) / ms);
    });
    progress(`round ${round + 1} of ${rounds}`);
  }
  if (read === 0) throw new Error('nothing was read');
  const base = rates[readers.findIndex(({ name }) => name === 'JSON.parse, mixed')] as number[];
  const by = (value: (list: readonly number[]) => number) =>
    Object.fromEntries(readers.map(({ name }, r) => [name, value(rates[r] as number[])]));
  return {
    case: 'parse',
    events_per_batch: events,
    rounds,
    bytes_per_event: Math.round(bytesPerEvent * 10) / 10,
    json_bytes_per_event: Math.round(jsonBytesPerEvent * 10) / 10,
    events_per_cpu_s: by((list) => Math.round(median(list))),
    ratio_to_json_parse: by((list) => {
      const ratio = median(list.map((rate, i) => rate / (base[i] as number)));
      return Number(ratio.toPrecision(3));
    }),
  };
}

export function parseCommand(): Command {
  return new Command('parse')
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
    .action(({ events, rounds, json }: CommandLine) => {
      const result = measureParse(events, rounds, (line) => process.stderr.write(`parse: ${line}\n`));
      process.stdout.write(
        `batches of ${events} events of ${result.bytes_per_event} bytes (JSON ${result.json_bytes_per_event}), ${rounds} rounds\n`,
      );
      for (const [name, rate] of Object.entries(result.events_per_cpu_s)) {
        const ratio = (result.ratio_to_json_parse[name] as number).toFixed(2).padStart(7);
        process.stdout.write(
          `${name.padEnd(32)}${(rate / 1e6).toFixed(2).padStart(7)} M events per CPU-second ${ratio} × JSON.parse\n`,
        );
      }
      if (json) process.stdout.write(`${JSON.stringify(result)}\n`);
    });
}
