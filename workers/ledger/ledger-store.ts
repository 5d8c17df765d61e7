/**
 * Reads what ClickHouse has of blocks and batches, for the commands that compare it with the log (audit, where, batch status). It reads
 * in pages, so memory is bounded for any history.
 */

import type { ClickHouse } from '../clickhouse/client.js';
import { quote } from '../clickhouse/schema/columns.js';
import { readingSettings, type TableTarget, tableName } from '../clickhouse/schema/index.js';
import { type Fingerprint, fingerprintFacts, fingerprintFrom } from '../loader/fingerprint.js';
import { type EventPlace, type EventsOfBatch, eventCounts, eventPlaces } from '../loader/stored-events.js';

/** The blocks of one shard and stream generation. */
export interface BlockGroup {
  readonly generation: string;
  readonly shard: number;
  readonly firstBlock: number;
  readonly lastBlock: number;
  /** Last message. */
  readonly hi: number;
}

/** One block as its rows tell it. Least and greatest of what must be the same in all of them. */
export interface StoredBlock {
  readonly generation: string;
  readonly shard: number;
  /** YYYY-MM-DD. */
  readonly day: string;
  readonly block: number;
  readonly lo: number;
  readonly hi: number;
  /** When the log took the message `hi`, ms; 0 when that is not known. */
  readonly hiAtMs: number;
  /** Rows with an event in them: tombstones do not count. */
  readonly rows: number;
  readonly accepted: number;
  readonly duplicate: number;
  readonly dead: number;
  /** Its rows do not agree on what the block is. */
  readonly torn: boolean;
}

/** Rows of one batch in one block. */
export interface StoredRows {
  readonly tenant: string;
  readonly batchId: string;
  readonly generation: string;
  readonly shard: number;
  readonly day: string;
  readonly block: number;
  readonly lo: number;
  readonly hi: number;
  readonly attempt: number;
  readonly rows: number;
  /** Event ids among them. */
  readonly distinct: number;
  /** By the gateway's clock, ms since 1970. */
  readonly receivedAtMs: number;
}

/** All rows of a batch. */
export interface BatchTotal extends BatchName {
  readonly rows: number;
  /** Event ids among them. */
  readonly distinct: number;
  readonly print: Fingerprint;
  /** Attempts that have rows, ascending. */
  readonly attempts: readonly number[];
  /** By the gateway's clock, ms since 1970; of the first copy that has rows. */
  readonly receivedAtMs: number;
}

/** Name of a batch. */
export interface BatchName {
  readonly tenant: string;
  readonly batchId: string;
}

export interface LedgerStore {
  /** By generation and shard. */
  groups(): Promise<BlockGroup[]>;
  /** In order of their numbers; one that is there on two days comes twice. */
  blocks(group: BlockGroup): AsyncGenerator<StoredBlock>;
  /** One block again. */
  block(of: Pick<StoredBlock, 'generation' | 'shard' | 'day' | 'block'>): Promise<StoredBlock | undefined>;
  /** The block that has this message of the log. */
  blockWith(generation: string, shard: number, sequence: number): Promise<StoredBlock | undefined>;
  /** Where the events of these batches are, in all shards. At most {@link maxNames}. */
  rowsOf(names: readonly BatchName[]): Promise<StoredRows[]>;
  /** Rows and event ids of each of these batches, over all shards; those without rows are left out. */
  totalsOf(names: readonly BatchName[]): Promise<BatchTotal[]>;
  /** How often each of these events is stored in its batch, over all shards. In the order of the questions. */
  eventCounts(questions: readonly EventsOfBatch[]): Promise<ReadonlyMap<string, number>[]>;
  /** Where events of one batch are, over all shards. */
  eventPlaces(question: EventsOfBatch): Promise<EventPlace[]>;
  /** Batches that hold an event of this id in one day. At most 100 rows. */
  eventsOn(day: string, eventId: string, tenant: string | undefined): Promise<StoredRows[]>;
  /** Days of the table, newest first. */
  days(): Promise<string[]>;
}

const pageBlocks = 10_000;
/** Names of a look-up: some 120 bytes of statement each. */
export const maxNames = 2_000;

/** The hash that `_batch` holds. */
const hashOf = ({ tenant, batchId }: BatchName): string =>
  `reinterpretAsUInt128(sipHash128(${quote(tenant)}, ${quote(batchId)}))`;

type Texts<T> = { [K in keyof T]: string };

const blockFacts =
  'toString(_block) AS block, toString(_day) AS day, toString(min(_lo)) AS lo, toString(max(_hi)) AS hi, ' +
  'toString(toUnixTimestamp64Milli(max(_hi_at))) AS hiAtMs, ' +
  "toString(countIf(tenant != '')) AS rows, toString(max(_accepted)) AS accepted, toString(max(_duplicate)) AS duplicate, " +
  'toString(max(_dead)) AS dead, ' +
  // An older version's tombstones know no counts.
  "toString(min(_lo) != max(_lo) OR min(_hi) != max(_hi) OR (countIf(tenant != '') > 0 AND " +
  "(minIf(_accepted, tenant != '') != max(_accepted) OR minIf(_duplicate, tenant != '') != max(_duplicate) OR " +
  "minIf(_dead, tenant != '') != max(_dead)))) AS torn";

const rowFacts =
  'tenant, batch_id AS batchId, toString(_stream) AS generation, toString(_shard) AS shard, toString(_day) AS day, ' +
  'toString(_block) AS block, toString(_lo) AS lo, toString(_hi) AS hi, toString(_attempt) AS attempt, ' +
  'toString(count()) AS rows, toString(uniqExact(event_id)) AS distinct, ' +
  'toString(toUnixTimestamp64Milli(min(received_at))) AS receivedAtMs';
const rowGroups = 'tenant, batch_id, _stream, _shard, _day, _block, _lo, _hi, _attempt';

type Select = <T>(query: string, parameters?: Record<string, unknown>) => Promise<T[]>;

/** Reads blocks. */
function createBlockReader(ask: Select, table: string): Pick<LedgerStore, 'groups' | 'blocks' | 'block' | 'blockWith'> {
  const blocksWhere = async (
    { generation, shard }: Pick<BlockGroup, 'generation' | 'shard'>,
    condition: string,
    parameters: Record<string, unknown>,
  ): Promise<StoredBlock[]> => {
    const rows = await ask<Texts<Omit<StoredBlock, 'generation' | 'shard'>>>(
      `SELECT ${blockFacts} FROM ${table} WHERE _stream = {stream:String} AND _shard = {shard:UInt32} AND ` +
        `${condition} GROUP BY _block, _day ORDER BY _block, _day`,
      { stream: generation, shard, ...parameters },
    );
    return rows.map((row) => ({
      generation,
      shard,
      day: row.day,
      block: Number(row.block),
      lo: Number(row.lo),
      hi: Number(row.hi),
      hiAtMs: Number(row.hiAtMs),
      rows: Number(row.rows),
      accepted: Number(row.accepted),
      duplicate: Number(row.duplicate),
      dead: Number(row.dead),
      torn: row.torn === '1',
    }));
  };
  const page = (group: Pick<BlockGroup, 'generation' | 'shard'>, after: number, upTo: number): Promise<StoredBlock[]> =>
    blocksWhere(group, '_block > {after:UInt64} AND _block <= {upTo:UInt64}', { after, upTo });

  return {
    async groups() {
      const rows = await ask<Texts<BlockGroup>>(
        'SELECT toString(_stream) AS generation, toString(_shard) AS shard, toString(min(_block)) AS firstBlock, ' +
          `toString(max(_block)) AS lastBlock, toString(max(_hi)) AS hi FROM ${table} GROUP BY _stream, _shard ` +
          'ORDER BY _stream, _shard',
      );
      return rows.map((row) => ({
        generation: row.generation,
        shard: Number(row.shard),
        firstBlock: Number(row.firstBlock),
        lastBlock: Number(row.lastBlock),
        hi: Number(row.hi),
      }));
    },

    async *blocks(group) {
      for (let at = group.firstBlock - 1; at < group.lastBlock; at += pageBlocks) {
        yield* await page(group, at, Math.min(at + pageBlocks, group.lastBlock));
      }
    },

    async block(of) {
      return (await page(of, of.block - 1, of.block)).find(({ day }) => day === of.day);
    },

    async blockWith(generation, shard, sequence) {
      const found = await blocksWhere({ generation, shard }, '_lo <= {at:UInt64} AND _hi >= {at:UInt64}', {
        at: sequence,
      });
      return found[0];
    },
  };
}

/** Numbers come as text. */
const rowsFrom = (rows: Texts<StoredRows>[]): StoredRows[] =>
  rows.map(({ tenant, batchId, generation, day, ...numbers }) => ({
    tenant,
    batchId,
    generation,
    day,
    shard: Number(numbers.shard),
    block: Number(numbers.block),
    lo: Number(numbers.lo),
    hi: Number(numbers.hi),
    attempt: Number(numbers.attempt),
    rows: Number(numbers.rows),
    distinct: Number(numbers.distinct),
    receivedAtMs: Number(numbers.receivedAtMs),
  }));

const checkNumber = (names: readonly BatchName[]): void => {
  if (names.length > maxNames) throw new RangeError(`${names.length} names; at most ${maxNames} at a time`);
};

/** Reads rows of batches and of events. */
function createRowReader(ask: Select, table: string): Pick<LedgerStore, 'rowsOf' | 'totalsOf' | 'eventsOn'> {
  return {
    async rowsOf(names) {
      if (names.length === 0) return [];
      checkNumber(names);
      return rowsFrom(
        await ask(
          `SELECT ${rowFacts} FROM ${table} WHERE _batch IN (${names.map(hashOf).join(', ')}) ` +
            `GROUP BY ${rowGroups} ORDER BY _stream, _shard, _block, batch_id`,
        ),
      );
    },

    async totalsOf(names) {
      if (names.length === 0) return [];
      checkNumber(names);
      const rows = await ask<Record<string, string> & { attempts: number[] }>(
        `SELECT tenant, batch_id AS batchId, ${fingerprintFacts}, toString(uniqExact(event_id)) AS distinct, ` +
          'arraySort(groupUniqArray(_attempt)) AS attempts, toString(toUnixTimestamp64Milli(min(received_at))) AS receivedAtMs ' +
          `FROM ${table} WHERE _batch IN (${names.map(hashOf).join(', ')}) GROUP BY tenant, batch_id`,
      );
      return rows.map((row) => ({
        tenant: row.tenant ?? '',
        batchId: row.batchId ?? '',
        rows: Number(row.events),
        distinct: Number(row.distinct),
        print: fingerprintFrom({ events: row.events ?? '', sum3: row.sum3 ?? '', sum2: row.sum2 ?? '' }),
        attempts: row.attempts,
        receivedAtMs: Number(row.receivedAtMs),
      }));
    },

    async eventsOn(day, eventId, tenant) {
      return rowsFrom(
        await ask(
          `SELECT ${rowFacts} FROM ${table} WHERE _day = {day:Date} AND event_id = {id:String}` +
            (tenant === undefined ? '' : ' AND tenant = {tenant:String}') +
            ` GROUP BY ${rowGroups} ORDER BY _stream, _shard, _block LIMIT 100`,
          { day, id: eventId, tenant: tenant ?? '' },
        ),
      );
    },
  };
}

export function createLedgerStore(clickhouse: ClickHouse, target: TableTarget): LedgerStore {
  const table = tableName(target);
  const ask: Select = <T>(query: string, parameters: Record<string, unknown> = {}): Promise<T[]> =>
    clickhouse.rows<T>(query, parameters, readingSettings(target));
  return {
    ...createBlockReader(ask, table),
    ...createRowReader(ask, table),

    eventCounts: (questions) => eventCounts(ask, table, questions),
    eventPlaces: (question) => eventPlaces(ask, table, question),

    async days() {
      const rows = await ask<{ day: string }>(`SELECT DISTINCT toString(_day) AS day FROM ${table} ORDER BY day DESC`);
      return rows.map((row) => row.day);
    },
  };
}
