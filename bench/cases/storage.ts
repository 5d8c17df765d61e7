/**
 * What an event takes on disk, and whether the disk was the limit.
 */
import { toJsonString } from '@bufbuild/protobuf';
import { type Event, EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { createRandom, makeBatch } from '../../lib/testing/batches.js';
import type { Phase } from '../measure.js';
import { row } from '../report.js';
import { type BenchClickHouse, eventsTable } from '../stack.js';
import type { Progress } from './case.js';

export interface Storage {
  /** Bytes on disk an event, all columns and indexes. */
  readonly bytes_per_event: number;
  /** Of those, the columns of random ids, which nothing can compress. */
  readonly id_bytes_per_event: number;
  /** The same events as JSON, a line each. */
  readonly json_bytes_per_event: number;
  /** JSON to disk, with the random ids and without them on both sides. */
  readonly ratio_to_json: number;
  readonly ratio_to_json_without_ids: number;
  readonly parts: number;
  /** False: there was too much to merge it all, so the figure is of what had been merged by then. */
  readonly merged_to_one: boolean;
  /** The largest columns, bytes an event. */
  readonly largest_columns: Readonly<Record<string, number>>;
}

/** Columns that hold random ids; the first three are fields of an event, the others are of its batch. */
const idColumns = ['event_id', 'anonymous_id', 'session_id', 'batch_id', '_batch'];
/** More rows than this are not merged to one part for the figure: it would take minutes. */
const maxRowsToMerge = 12_000_000;

export async function measureStorage(clickhouse: BenchClickHouse, progress: Progress): Promise<Storage> {
  const before = await clickhouse.look();
  const all = before.events <= maxRowsToMerge;
  if (all) {
    progress('merging everything, to see what it takes on disk');
    await clickhouse.ask(`OPTIMIZE TABLE ${eventsTable} FINAL SETTINGS optimize_skip_merged_partitions = 1`);
  }
  const { events, parts, bytes } = await clickhouse.look();
  const [database, table] = eventsTable.split('.');
  const columns = await clickhouse.ask(
    `SELECT column AS name, sum(column_bytes_on_disk) / ${events} AS bytes FROM system.parts_columns ` +
      `WHERE active AND database = '${database}' AND table = '${table}' GROUP BY column ORDER BY bytes DESC`,
  );
  const byColumn = Object.fromEntries(columns.map(({ name = '', bytes: of }) => [name, Number(of)]));
  const ids = idColumns.reduce((sum, name) => sum + (byColumn[name] ?? 0), 0);
  const json = jsonBytes();
  return {
    bytes_per_event: bytes / events,
    id_bytes_per_event: ids,
    json_bytes_per_event: json.whole,
    ratio_to_json: json.whole / (bytes / events),
    ratio_to_json_without_ids: json.withoutIds / (bytes / events - ids),
    parts,
    merged_to_one: all,
    largest_columns: Object.fromEntries(Object.entries(byColumn).slice(0, 10)),
  };
}

/** The generator's events as JSON, a line each: what an API of JSON would be sent. */
function jsonBytes(): { whole: number; withoutIds: number } {
  const { events } = makeBatch(createRandom(1), 5_000);
  const bytes = (of: readonly Event[]) =>
    of.reduce((sum, event) => sum + Buffer.byteLength(toJsonString(EventSchema, event)) + 1, 0) / of.length;
  return {
    whole: bytes(events),
    withoutIds: bytes(events.map((event) => ({ ...event, eventId: '', anonymousId: '', sessionId: '' }))),
  };
}

export const storageLines = (storage: Storage): string[] => [
  row(
    'on disk',
    `${storage.bytes_per_event.toFixed(1)} bytes an event, ${storage.id_bytes_per_event.toFixed(1)} of them random ids` +
      (storage.merged_to_one ? '' : ` (${storage.parts} parts, not merged to one)`),
  ),
  row(
    'JSON to disk',
    `${storage.ratio_to_json.toFixed(1)}:1; without the random ids ${storage.ratio_to_json_without_ids.toFixed(1)}:1` +
      ` (${storage.json_bytes_per_event.toFixed(0)} bytes of JSON an event)`,
  ),
];

/** From here on the disk, not the processors, is probably what a run waited for. */
const busyFrom = 0.9;

export const diskLines = (phase: Pick<Phase, 'disk_busy' | 'disk_write_mb_per_s'>): string[] => {
  if (!Number.isFinite(phase.disk_write_mb_per_s)) return [];
  const limit = phase.disk_busy >= busyFrom ? ': probably the limit of this run' : '';
  return [
    row(
      'disk',
      `${phase.disk_write_mb_per_s.toFixed(0)} MB/s written, busy ${(phase.disk_busy * 100).toFixed(0)} % of the time${limit}`,
    ),
  ];
};
