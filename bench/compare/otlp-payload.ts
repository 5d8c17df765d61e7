/**
 * The load generator's batches as OTLP takes them: an ExportLogsServiceRequest in a frame of gRPC, encoded once, in which each
 * send changes digits in place like payload.ts does. The same events, from the same seeds.
 */
import { makeBatch, seededRandom } from '../../lib/testing/batches.js';
import { batchIdBlank, drawSalts, type Prepared, viewOf } from '../payload.js';
import { encodeLogs } from '../peers/otlp-logs.js';

export interface PrepareOtlpOptions {
  readonly events: number;
  readonly seed: number;
}

const idLength = 36;
/** What stands before each event's id: its key, and tags and lengths of a value that is a text. */
const idMark = Buffer.from([...Buffer.from('event_id'), 0x12, idLength + 2, 0x0a, idLength]);
/** What stands before the attempt. */
const attemptMark = Buffer.from([...Buffer.from('attempt'), 0x12, 2, 0x18]);

/** @throws Error when the message is not laid out as patching relies on */
export function prepareOtlp(options: PrepareOtlpOptions): Prepared {
  const random = seededRandom(options.seed);
  const { events } = makeBatch(random, options.events);
  const message = encodeLogs({ batchId: batchIdBlank, attempt: 1, sentAt: new Date(), events });
  const bytes = Buffer.concat([Buffer.alloc(5), message]);
  bytes.writeUInt32BE(message.length, 1);
  const idOffsets = new Uint32Array(options.events);
  let at = 0;
  for (let i = 0; i < idOffsets.length; i++) {
    at = bytes.indexOf(idMark, at) + idMark.length;
    idOffsets[i] = at;
    if (bytes.toString('latin1', at, at + idLength) !== events[i]?.eventId) {
      throw new Error('an event_id is not where it should be');
    }
  }
  const attemptOffset = bytes.indexOf(attemptMark) + attemptMark.length;
  if (bytes[attemptOffset] !== 1) throw new Error('the attempt is not where it should be');
  const salts = drawSalts(random, options.events);
  return {
    target: 'otlp',
    bytes,
    view: viewOf(bytes),
    batch: { start: 5, end: bytes.length },
    events: options.events,
    idOffsets,
    salts,
    batchIdOffset: bytes.indexOf(batchIdBlank),
    attemptOffset,
    secondsOffset: -1,
  };
}
