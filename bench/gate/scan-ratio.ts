/**
 * How many times as many events a CPU second the scanner reads as JSON.parse, in one process, in turns.
 */
import { toJsonString } from '@bufbuild/protobuf';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import { scanBatch } from '../../lib/contract/index.js';
import { encodeBatch, makeBatch, seededRandom } from '../../lib/testing/batches.js';

const events = 500;
/** More events than a branch predictor can learn by heart. */
const batchCount = 32;
/** CPU time of one turn, about. */
const turnMs = 60;

function cpuMs(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** @returns the ratio of each round */
export function scanRatios(rounds: number): number[] {
  const random = seededRandom(1);
  const batches = Array.from({ length: batchCount }, () => makeBatch(random, events));
  const bytes = batches.map(encodeBatch);
  const texts = batches.map((batch) => toJsonString(EventBatchSchema, batch));
  let read = 0;
  const readers = [
    (i: number) => {
      read += scanBatch(bytes[i % batchCount]!, { maxEvents: events }).accepted;
    },
    (i: number) => {
      read += (JSON.parse(texts[i % batchCount]!) as { events: unknown[] }).events.length;
    },
  ];
  /** CPU time of reading one batch. */
  const turn = (reader: (i: number) => void, runs: number, from: number): number =>
    cpuMs(() => {
      for (let i = 0; i < runs; i++) reader(from + i);
    }) / runs;
  // Warm, then choose how many batches make a turn.
  const runs = readers.map((reader) => {
    turn(reader, 400, 0);
    return Math.max(10, Math.ceil(turnMs / turn(reader, 200, 0)));
  });
  const ratios: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const [scan, parse] = readers.map((reader, i) => turn(reader, runs[i]!, round));
    ratios.push(parse! / scan!);
  }
  if (read === 0) throw new Error('nothing was read');
  return ratios;
}
