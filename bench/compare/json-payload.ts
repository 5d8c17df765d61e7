/**
 * The load generator's batches as a JSON API takes them: a whole HTTP/1.1 request, encoded once, in which each send changes
 * digits in place like payload.ts does. The same events, from the same seeds.
 */
import { makeBatch, seededRandom } from '../../lib/testing/batches.js';
import { batchIdBlank, batchIdLength, drawSalts, type Prepared, viewOf } from '../payload.js';
import { plainJson } from '../peers/plain-json.js';

export interface PrepareJsonOptions {
  readonly events: number;
  readonly seed: number;
  /** Authority of the server, `127.0.0.1:8080`. */
  readonly host: string;
  readonly key: string;
}

const idMark = '"eventId":"';

/** @throws Error when the text is not laid out as patching relies on */
export function prepareJson(options: PrepareJsonOptions): Prepared {
  const random = seededRandom(options.seed);
  const batch = makeBatch(random, options.events);
  const body = Buffer.from(
    JSON.stringify({
      batchId: batchIdBlank,
      attempt: 1,
      sentAt: new Date().toISOString(),
      events: batch.events.map(plainJson),
    }),
  );
  const head = Buffer.from(
    `POST /v1/events/batch HTTP/1.1\r\nhost: ${options.host}\r\nauthorization: Bearer ${options.key}\r\n` +
      `user-agent: sluice-bench/0.1.0\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n`,
  );
  const bytes = Buffer.concat([head, body]);
  const idOffsets = new Uint32Array(options.events);
  let at = head.length;
  for (let i = 0; i < idOffsets.length; i++) {
    at = bytes.indexOf(idMark, at) + idMark.length;
    idOffsets[i] = at;
    const id = batch.events[i]?.eventId ?? '';
    if (bytes.toString('latin1', at, at + id.length + 1) !== `${id}"`)
      throw new Error('an eventId is not where it should be');
  }
  const batchIdOffset = bytes.indexOf(batchIdBlank);
  const attemptOffset = batchIdOffset + batchIdLength + '","attempt":'.length;
  if (bytes[attemptOffset] !== 0x31) throw new Error('the attempt is not where it should be');
  const salts = drawSalts(random, options.events);
  return {
    target: 'json',
    bytes,
    view: viewOf(bytes),
    batch: { start: head.length, end: bytes.length },
    events: options.events,
    idOffsets,
    salts,
    batchIdOffset,
    attemptOffset,
    secondsOffset: -1,
  };
}
