/**
 * The load generator's batches as peers take them, encoded once; each send changes digits in place like payload.ts does. The
 * same events, from the same seeds.
 */
import type { EventBatch } from '#gen/sluice/event/v1/event_pb.js';
import { createRandom, makeBatch, type Random } from '../../lib/testing/batches.js';
import { batchIdBlank, drawSalts, type Prepared, viewOf } from '../payload.js';
import { encodeLogs } from '../peers/otlp-logs.js';
import { plainJson } from '../peers/plain-json.js';

interface Shape {
  readonly events: number;
  readonly seed: number;
}

/** For a JSON API: the body of a request. */
export function prepareJson(shape: Shape): Prepared {
  const random = createRandom(shape.seed);
  const batch = makeBatch(random, shape.events);
  const text = JSON.stringify({
    batchId: batchIdBlank,
    attempt: 1,
    sentAt: new Date().toISOString(),
    events: batch.events.map(plainJson),
  });
  return patchable('json', random, batch, Buffer.from(text), 0, {
    id: Buffer.from('"eventId":"'),
    attempt: Buffer.from('"attempt":'),
    firstAttempt: 0x31,
  });
}

const idLength = 36;

/** For OTLP: an ExportLogsServiceRequest in a frame of gRPC. */
export function prepareOtlp(shape: Shape): Prepared {
  const random = createRandom(shape.seed);
  const batch = makeBatch(random, shape.events);
  const message = encodeLogs({ batchId: batchIdBlank, attempt: 1, sentAt: new Date(), events: batch.events });
  const bytes = Buffer.concat([Buffer.alloc(5), message]);
  bytes.writeUInt32BE(message.length, 1);
  return patchable('otlp', random, batch, bytes, 5, {
    // Its key, and tags and lengths of a value that is a text.
    id: Buffer.from([...Buffer.from('event_id'), 0x12, idLength + 2, 0x0a, idLength]),
    attempt: Buffer.from([...Buffer.from('attempt'), 0x12, 2, 0x18]),
    firstAttempt: 1,
  });
}

/** What stands right before a value that is patched. */
interface Marks {
  readonly id: Buffer;
  readonly attempt: Buffer;
  readonly firstAttempt: number;
}

/** @throws Error when the bytes are not laid out as patching relies on */
function patchable(
  target: 'json' | 'otlp',
  random: Random,
  { events }: EventBatch,
  bytes: Buffer,
  start: number,
  marks: Marks,
): Prepared {
  let at = 0;
  const idOffsets = Uint32Array.from(events, ({ eventId }) => {
    at = bytes.indexOf(marks.id, at) + marks.id.length;
    if (bytes.toString('latin1', at, at + idLength) !== eventId)
      throw new Error('an event id is not where it should be');
    return at;
  });
  const attemptOffset = bytes.indexOf(marks.attempt) + marks.attempt.length;
  if (bytes[attemptOffset] !== marks.firstAttempt) throw new Error('the attempt is not where it should be');
  return {
    target,
    bytes,
    view: viewOf(bytes),
    batch: { start, end: bytes.length },
    events: events.length,
    idOffsets,
    salts: drawSalts(random, events.length),
    batchIdOffset: bytes.indexOf(batchIdBlank),
    attemptOffset,
    secondsOffset: -1,
  };
}
