/**
 * Marketing journeys from a CSV: `path,total_conversions,total_conversion_value,total_null`, where `path` is the channels
 * in order ("email > search > email"). A row stands for `total_conversions` journeys that took the path and converted,
 * worth `total_conversion_value` together, and `total_null` that took it and did not.
 */
import { parse } from 'csv-parse';
import { UsageError } from '../../lib/errors.js';
import { parseWhole } from '../../lib/number-text.js';
import { hourMs, MiB } from '../../lib/units.js';
import { type EventInit, EventType } from '../../sdk-gen/typescript/src/index.js';
import { openInput } from './input.js';
import type { Source } from './source.js';

export interface JourneyRow {
  readonly channels: readonly string[];
  readonly conversions: number;
  /** Worth of all the row's conversions, in millionths. */
  readonly valueMicros: bigint;
  /** Journeys that did not convert. */
  readonly nulls: number;
}

const columns = ['path', 'total_conversions', 'total_conversion_value', 'total_null'] as const;
const maxJourneys = 10_000_000;
const maxTouches = 1_000;
/** What an event may be worth, by the contract. */
const maxMicros = 1_000_000_000_000_000n;

/**
 * Decimal text, in the form of JSON's numbers → millionths, rounded half up (away from zero), on the text itself: 2.4019999999999997 has no exact
 * floating-point form, and sums of rounded parts must come out to the last digit.
 * @throws Error when the text is no decimal number
 */
export function toMicros(text: string): bigint {
  const match = /^(-?)(0|[1-9]\d{0,39})(?:\.(\d{1,400}))?(?:[eE]([+-]?\d{1,3}))?$/.exec(text);
  const whole = match?.[2] ?? '';
  const fraction = match?.[3] ?? '';
  if (match === null) throw new Error(`"${text.slice(0, 40)}" is not a decimal number`);
  const exponent = Number(match[4] ?? 0);
  // digits × 10^scale millionths
  const digits = BigInt(whole + fraction);
  const scale = 6 - fraction.length + exponent;
  let micros: bigint;
  if (scale >= 0) micros = digits * 10n ** BigInt(scale);
  else {
    const unit = 10n ** BigInt(-scale);
    micros = (digits + unit / 2n) / unit;
  }
  return match[1] === '-' ? -micros : micros;
}

/** Parts that are as equal as may be; the last takes the remainder, so that they add up. */
export function splitEvenly(total: bigint, parts: number): { each: bigint; last: bigint } {
  if (parts === 0) return { each: 0n, last: 0n };
  const each = total / BigInt(parts);
  return { each, last: total - each * BigInt(parts - 1) };
}

/** @throws Error that says what is wrong with the record */
export function parseRow(record: Readonly<Record<string, string>>): JourneyRow {
  const count = (column: 'total_conversions' | 'total_null'): number => {
    const text = record[column] ?? '';
    // Spreadsheets write 12.0.
    const value = parseWhole(text.replace(/\.0{1,20}$/, ''));
    if (value === undefined || value < 0 || value > maxJourneys) {
      throw new Error(`${column} "${text.slice(0, 40)}" is not a whole number up to ${maxJourneys}`);
    }
    return value;
  };
  const channels = (record.path ?? '').split('>').map((channel) => channel.trim());
  if (channels.includes('')) throw new Error('path has an empty channel');
  if (channels.length > maxTouches) throw new Error(`path has more than ${maxTouches} channels`);
  const long = channels.find((channel) => Buffer.byteLength(channel) > 128);
  if (long !== undefined) throw new Error(`channel "${long.slice(0, 40)}…" has more than 128 bytes`);
  const conversions = count('total_conversions');
  const valueMicros = toMicros(record.total_conversion_value ?? '');
  if (conversions === 0 && valueMicros !== 0n) throw new Error('total_conversion_value without total_conversions');
  const { each, last } = splitEvenly(valueMicros, conversions);
  if ([each, last].some((micros) => micros > maxMicros || micros < -maxMicros)) {
    throw new Error('total_conversion_value is more than a billion for one conversion');
  }
  return { channels, conversions, valueMicros, nulls: count('total_null') };
}

/** Events that a row expands to. */
export const eventsOfRow = (row: JourneyRow): number =>
  row.channels.length * (row.conversions + row.nulls) + row.conversions;

export interface ExpandOptions {
  /** Number of the row's first journey in the file. */
  readonly firstJourney: number;
  /** Prefix of the anonymous ids, so that journeys of two runs are different people. */
  readonly run: string;
  /** No journey ends later, ms since 1970. */
  readonly endMs: number;
}

/**
 * The events of a row's journeys: those that convert first. Touches are an hour apart and the conversion, if any, an hour
 * after the last; journeys end within the week before `endMs`.
 */
export function* expandRow(row: JourneyRow, options: ExpandOptions): Generator<EventInit> {
  const { each, last } = splitEvenly(row.valueMicros, row.conversions);
  const touches = row.channels.length;
  for (let i = 0; i < row.conversions + row.nulls; i++) {
    const journey = options.firstJourney + i;
    const anonymousId = `${options.run}-j${journey}`;
    // 37 minutes and the number of minutes in a week have no common factor: journeys spread evenly.
    const end = options.endMs - ((journey * 37) % 10_080) * 60_000;
    for (let t = 0; t < touches; t++) {
      yield {
        type: EventType.CLICK,
        occurredAt: new Date(end - (touches - t) * hourMs),
        anonymousId,
        touch: { channel: row.channels[t] as string },
      };
    }
    if (i < row.conversions) {
      yield {
        type: EventType.CONVERSION,
        occurredAt: new Date(end),
        anonymousId,
        valueMicros: i === row.conversions - 1 ? last : each,
      };
    }
  }
}

/** @throws UsageError that names file, line and fix */
export async function* readJourneys(file: string): AsyncGenerator<JourneyRow> {
  const input = await openInput(file);
  const parser = parse({
    bom: true,
    skip_empty_lines: true,
    info: true,
    max_record_size: MiB,
    columns: (header: string[]) => {
      const names = header.map((name) => name.trim());
      const missing = columns.filter((column) => !names.includes(column));
      if (missing.length > 0) {
        throw new UsageError(
          `${file} is no journey CSV: its first line lacks ${missing.join(', ')}. It should be "${columns.join(',')}".`,
        );
      }
      return names;
    },
  });
  // Errors of the input end the parser, and with it the loop below.
  input.on('error', (error) => parser.destroy(error));
  input.pipe(parser);
  try {
    for await (const { record, info } of parser as AsyncIterable<{
      record: Record<string, string>;
      info: { lines: number };
    }>) {
      try {
        yield parseRow(record);
      } catch (error) {
        throw new UsageError(`${file}, line ${info.lines}: ${error instanceof Error ? error.message : String(error)}.`);
      }
    }
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(
      `${file} cannot be read as CSV: ${error instanceof Error ? error.message : String(error)}. ` +
        `It should be "${columns.join(',')}", gzipped or not.`,
    );
  } finally {
    input.destroy();
  }
}

/** Reads the file once to check it and count; the events are expanded as they are asked for, in a second pass. */
export async function journeySource(file: string, run: string, endMs: number): Promise<Source> {
  let rows = 0;
  let journeys = 0;
  let total = 0;
  for await (const row of readJourneys(file)) {
    rows++;
    journeys += row.conversions + row.nulls;
    total += eventsOfRow(row);
  }
  if (total === 0) throw new UsageError(`${file} holds no journeys.`);
  return {
    title: `${journeys.toLocaleString('en')} journeys over ${rows.toLocaleString('en')} paths of ${file}`,
    total,
    notes: [],
    async *events() {
      let firstJourney = 0;
      for await (const row of readJourneys(file)) {
        yield* expandRow(row, { firstJourney, run, endMs });
        firstJourney += row.conversions + row.nulls;
      }
    },
  };
}
