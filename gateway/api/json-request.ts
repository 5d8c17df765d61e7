/**
 * Reads JSON requests of the plain HTTP routes and the RPC protocols: everything around the events, strictly. lib/contract/json reads
 * the events, one by one.
 *
 *   JSON-1  A text that is no JSON, and a fault outside of the events, refuses the request and names the field. On a stream it refuses
 *       only its message.
 *   JSON-2  A fault inside an event refuses that event, by index, field and code.
 *   JSON-3  A name that comes twice is a fault, also once as `batchId` and once as `batch_id`; so is an unknown one, unless the request
 *       has the header `sluice-unknown-fields: ignore`. Then it is left out, and the answer lists it.
 */
import { Durability } from '#gen/sluice/ingest/v1/ingest_pb.js';
import {
  FieldFault,
  JsonText,
  maxNames,
  NameTable,
  type ReadBatch,
  type ReadLimits,
  readEvent,
  readEvents,
  readTimestamp,
  readWhole,
  SeenNames,
} from '../../lib/contract/json/index.js';
import { SluiceError } from '../../lib/errors.js';
import { sentence } from '../errors/rpc-errors.js';
import type { BatchMessage } from './view.js';

export type JsonLimits = ReadLimits;

/** Of every JSON request of a gateway with these limits. */
export const jsonLimitsOf = (limits: {
  readonly maxBatchEvents: number;
  readonly maxBatchBytes: number;
}): Omit<JsonLimits, 'ignoreUnknownFields'> => ({
  maxEvents: limits.maxBatchEvents,
  maxBytes: limits.maxBatchBytes,
});

/** Of a request: its bytes, inflated. Pauses (yields) in long ones. @throws SluiceError json_invalid, batch_too_large */
export type ReadJson = (bytes: Uint8Array, limits: JsonLimits) => Generator<void, BatchMessage>;

const unknownFields = 'sluice-unknown-fields';

/** Whether a request asks to leave out unknown fields. @throws SluiceError json_invalid */
export function ignoresUnknownFields(header: (name: string) => string | null | undefined): boolean {
  const value = header(unknownFields) ?? 'refuse';
  if (value === 'ignore') return true;
  if (value === 'refuse') return false;
  throw new SluiceError(
    'json_invalid',
    `The header ${unknownFields} is "${value.slice(0, 64)}", not "ignore" or "refuse".`,
    {
      field: unknownFields,
    },
  );
}

type Part = 'batch' | 'events' | 'batch_id' | 'attempt' | 'sent_at' | 'options';

const around = [
  ['batchId', 'batch_id'],
  ['batch_id', 'batch_id'],
  ['attempt', 'attempt'],
  ['sentAt', 'sent_at'],
  ['sent_at', 'sent_at'],
] as const satisfies (readonly [string, Part])[];
const requestNames = new NameTable<Part>([['batch', 'batch'], ...around]);
const streamNames = new NameTable<Part>([['batch', 'batch'], ['options', 'options'], ...around]);
const flatNames = new NameTable<Part>([['events', 'events'], ...around]);
const batchNames = new NameTable<'events'>([['events', 'events']]);
const optionNames = new NameTable<'durability'>([['durability', 'durability']]);
const durabilities = new NameTable<Durability>([
  ['DURABILITY_UNSPECIFIED', Durability.UNSPECIFIED],
  ['DURABILITY_ACCEPTED', Durability.ACCEPTED],
  ['DURABILITY_COMMITTED', Durability.COMMITTED],
]);

/** A PublishRequest. */
export const readPublishRequest: ReadJson = (bytes, limits) => new RequestReader(bytes, limits).request(requestNames);

/** A PublishStreamRequest. It throws nothing for a message that is refused, and returns why as its `refusal`. */
export const readStreamRequest: ReadJson = function* (bytes, limits) {
  try {
    return yield* new RequestReader(bytes, limits).request(streamNames);
  } catch (reason) {
    if (!(reason instanceof SluiceError)) throw reason;
    return new RequestReader(bytes, limits).refused(reason);
  }
};

/** The body of POST /v1/events/batch: a PublishRequest whose events stand at the top. */
export const readFlatRequest: ReadJson = (bytes, limits) => new RequestReader(bytes, limits).request(flatNames);

/** The body of POST /v1/events: one event. */
// biome-ignore lint/correctness/useYield: one event is one slice.
export const readSingleEvent: ReadJson = function* (bytes, limits) {
  const text = new JsonText(bytes);
  const { bytes: batch, findings } = readEvent(text, limits);
  text.finish();
  return { batch, findings, batchId: '', attempt: 0, sentAt: undefined, durability: undefined };
};

const twice = 'given twice; give it at most once';
const nothing: ReadBatch = { bytes: new Uint8Array(0), findings: undefined };

class RequestReader {
  private readonly text: JsonText;
  private readonly ignored: string[] = [];
  private batch = nothing;
  private batchId = '';
  private attempt = 0;
  private sentAt: BatchMessage['sentAt'];
  private durability: Durability | undefined;

  constructor(
    bytes: Uint8Array,
    private readonly limits: JsonLimits,
  ) {
    this.text = new JsonText(bytes);
  }

  *request(names: NameTable<Part>): Generator<void, BatchMessage> {
    try {
      yield* this.members('', names, (part) => this.part(part));
    } catch (reason) {
      throw reason instanceof FieldFault ? ofRequest(reason) : reason;
    }
    this.text.finish();
    const { batchId, attempt, sentAt, durability } = this;
    return { batch: this.batch.bytes, findings: this.findings(), batchId, attempt, sentAt, durability };
  }

  /** What a stream needs of a message that is refused: its id and its options, wherever they stand, as far as the text is JSON. */
  refused(refusal: SluiceError): BatchMessage {
    try {
      this.idAndOptions();
    } catch (reason) {
      if (!(reason instanceof SluiceError || reason instanceof FieldFault)) throw reason;
    }
    const { batchId, durability } = this;
    return { batch: nothing.bytes, batchId, attempt: 0, sentAt: undefined, durability, refusal };
  }

  private idAndOptions(): void {
    const { text } = this;
    if (!text.openObject()) return;
    do {
      const part = text.key(streamNames);
      const start = text.p;
      try {
        // These have no slices.
        if (part === 'batch_id' || part === 'options') this.part(part).next();
      } catch (reason) {
        if (!(reason instanceof FieldFault)) throw reason;
      }
      text.p = start;
      text.skip(false);
    } while (text.moreMembers());
  }

  /** Each member of the object at the text's position; `null` is as good as absent. */
  private *members<P extends string>(
    path: string,
    names: NameTable<P>,
    take: (part: P) => Generator<void>,
  ): Generator<void> {
    const { text } = this;
    const seen = new Set<P>();
    const unknown = new SeenNames();
    if (!text.openObject()) return;
    do {
      const part = text.key(names);
      const shown = part ?? text.shown();
      try {
        if (part === undefined) {
          this.unknown(path + shown, unknown);
          continue;
        }
        if (seen.has(part)) throw new FieldFault(0, twice);
        seen.add(part);
        if (!text.takeNull()) yield* take(part);
      } catch (reason) {
        if (reason instanceof FieldFault) reason.within(shown);
        throw reason;
      }
    } while (text.moreMembers());
  }

  private unknown(path: string, names: SeenNames): void {
    const { text } = this;
    text.checkUtf8();
    if (!names.add(text.source, text.from, text.to, 0)) throw new FieldFault(0, twice);
    if (!this.limits.ignoreUnknownFields) throw new FieldFault(0, 'there is no such field');
    if (names.size > maxNames) throw new FieldFault(0, `one of more than ${maxNames} unknown fields`);
    this.ignored.push(path);
    text.skip(true);
  }

  private *part(part: Part): Generator<void> {
    const { text } = this;
    switch (part) {
      case 'batch':
        yield* this.members('batch.', batchNames, () => this.part('events'));
        break;
      case 'events':
        this.batch = yield* readEvents(text, this.limits);
        break;
      case 'batch_id':
        if (text.next() !== 0x22) text.wrongType('a string');
        text.string();
        this.batchId = text.decoded();
        break;
      case 'attempt':
        this.attempt = Number(readWhole(text, 'uint32'));
        break;
      case 'sent_at': {
        const { seconds, nanos } = readTimestamp(text);
        this.sentAt = { seconds: BigInt(seconds), nanos };
        break;
      }
      case 'options':
        this.durability = Durability.UNSPECIFIED;
        yield* this.members('options.', optionNames, () => this.readOptions());
    }
  }

  // biome-ignore lint/correctness/useYield: as `members` wants it.
  private *readOptions(): Generator<void> {
    this.durability = this.readDurability();
  }

  private readDurability(): Durability {
    const { text } = this;
    if (text.next() !== 0x22) return Number(readWhole(text, 'int32'));
    text.string();
    const durability = durabilities.findIn(text.source, text.from, text.to);
    if (durability === undefined) throw new FieldFault(0, `there is no "${text.shown()}"`);
    return durability;
  }

  private findings(): ReadBatch['findings'] {
    const { findings } = this.batch;
    if (this.ignored.length === 0) return findings;
    const { refused = [], rejections = [], ignoredFields = [] } = findings ?? {};
    return { refused, rejections, ignoredFields: [...new Set([...this.ignored, ...ignoredFields])].slice(0, 100) };
  }
}

function ofRequest({ path, message }: FieldFault): SluiceError {
  const field = path === '' ? undefined : path;
  return new SluiceError(
    'json_invalid',
    sentence(`${field ?? 'The request'}: ${message}`),
    field === undefined ? {} : { field },
  );
}
