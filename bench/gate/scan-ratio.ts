/**
 * How many times as many events a CPU second the scanner reads as JSON.parse, in one process, in turns.
 */
import { toJsonString } from '@bufbuild/protobuf';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import { scanBatch } from '../../lib/contract/index.js';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import { readInTurn } from '../readers-in-turn.js';

const events = 500;
/** More events than a branch predictor can learn by heart. */
const batchCount = 32;

/** @returns the ratio of each round */
export function scanRatios(rounds: number): number[] {
  const random = createRandom(1);
  const batches = Array.from({ length: batchCount }, () => makeBatch(random, events));
  const bytes = batches.map(encodeBatch);
  const texts = batches.map((batch) => toJsonString(EventBatchSchema, batch));
  const [scan, parse] = readInTurn(
    [
      { name: 'scan', read: (i) => scanBatch(bytes[i % batchCount]!, { maxEvents: events }).accepted },
      {
        name: 'JSON.parse',
        read: (i) => (JSON.parse(texts[i % batchCount]!) as { events: unknown[] }).events.length,
      },
    ],
    rounds,
  );
  return scan!.map((rate, round) => rate / parse![round]!);
}
