/**
 * What the loader asks of ClickHouse: the last block of a shard, one block by number, insert-if-absent, and which batches
 * are stored already (LOAD-5).
 */
import { randomUUID } from 'node:crypto';
import { type ClickHouse, StatementError } from '../clickhouse/client.js';
import type { TableMender } from '../clickhouse/mend-table.js';
import {
  type BlockConstants,
  blockName,
  insertStatement,
  readingSettings,
  type TableTarget,
  tableName,
  tombstoneStatement,
  trialStatement,
} from '../clickhouse/schema/index.js';
import type { StaleStatements } from '../clickhouse/stale-statement.js';
import type { Block } from './block.js';
import type { StoredCopies } from './copy-verdicts.js';
import { type Fingerprint, fingerprintFacts, fingerprintFrom, noEvents } from './fingerprint.js';
import { keyOf } from './frames.js';
import type { FoundBlock, InsertFailure, Place } from './loader.js';
import { sortByTenant } from './sort-by-tenant.js';
import { type Ask, eventCounts, type Identity, maxAsked, namesOf, ofBatches } from './stored-events.js';

export interface LastBlock {
  /** 0 when there is none. */
  readonly block: number;
  readonly hi: number;
  /** When the log took the message `hi`, ms; 0 when that is not known: no block, or one of an older version. */
  readonly hiAtMs: number;
  readonly others: readonly { readonly generation: string; readonly hi: number }[];
}

export interface BlockStore extends StoredCopies {
  /** @param fromDay where to look first: no block that matters begins before, as long as one is found from there on. */
  lastBlock(shard: number, generation: string, fromDay: string | undefined): Promise<LastBlock>;
  readBack(shard: number, place: Place, day: string): Promise<FoundBlock | undefined>;
  /** Insert-if-absent; of a block without rows, the tombstone. */
  insert(shard: number, place: Place, block: Block): Promise<void>;
  /**
   * LOAD-5, DEDUP-2: batches of another attempt than 1 that gateways took from then on, in all shards.
   * @param sinceMs by the gateways' clocks
   * @param max this many at most
   */
  retriedSince(sinceMs: number, max: number): Promise<readonly Identity[]>;
  /**
   * LOAD-6: reads a block's messages and stores nothing. @returns why they are refused for their content; undefined: they are not.
   * Rejects when that cannot be found out.
   * @param suspect ClickHouse's number of an unlisted error that counts as a refusal here (DLQ-5)
   */
  trial(messages: readonly Uint8Array[], suspect?: number): Promise<string | undefined>;
  classify(error: unknown): InsertFailure;
  /** Calls back when ClickHouse answers again, after it has not. Returns the un-subscriber. */
  onRecovered(listener: () => void): () => void;
}

function* chunksOf(batches: readonly Identity[]): Generator<readonly Identity[]> {
  for (let at = 0; at < batches.length; at += maxAsked) yield batches.slice(at, at + maxAsked);
}

/** What a worker does about errors besides trying again. */
export interface StoreCare {
  readonly stale: StaleStatements;
  readonly mender: TableMender;
}

/** Which blocks are stored. */
function createBlockReader(ask: Ask, table: string): Pick<BlockStore, 'lastBlock' | 'readBack'> {
  /** Knows its block: reads no part but that block's. */
  async function hiAtOf(shard: number, generation: string, block: number): Promise<number> {
    const [row] = await ask<{ at: string }>(
      `SELECT toString(toUnixTimestamp64Milli(max(_hi_at))) AS at FROM ${table} ` +
        'WHERE _stream = {stream:String} AND _shard = {shard:UInt32} AND _block = {block:UInt64}',
      { stream: generation, shard, block },
    );
    return Number(row?.at ?? 0);
  }

  return {
    async lastBlock(shard, generation, fromDay) {
      if (fromDay !== undefined) {
        const [near] = await ask<{ n: string; block: string; hi: string }>(
          `SELECT toString(count()) AS n, toString(max(_block)) AS block, toString(max(_hi)) AS hi FROM ${table} ` +
            'WHERE _day >= {day:Date} AND _stream = {stream:String} AND _shard = {shard:UInt32}',
          { day: fromDay, stream: generation, shard },
        );
        if (near !== undefined && near.n !== '0') {
          const block = Number(near.block);
          return { block, hi: Number(near.hi), hiAtMs: await hiAtOf(shard, generation, block), others: [] };
        }
      }
      const all = await ask<{ stream: string; block: string; hi: string }>(
        `SELECT toString(_stream) AS stream, toString(max(_block)) AS block, toString(max(_hi)) AS hi FROM ${table} ` +
          'WHERE _shard = {shard:UInt32} GROUP BY stream',
        { shard },
      );
      const own = all.find((row) => row.stream === generation);
      const block = Number(own?.block ?? 0);
      return {
        block,
        hi: Number(own?.hi ?? 0),
        hiAtMs: block === 0 ? 0 : await hiAtOf(shard, generation, block),
        others: own === undefined ? all.map((row) => ({ generation: row.stream, hi: Number(row.hi) })) : [],
      };
    },

    async readBack(shard, place, day) {
      const [row] = await ask<{ n: string; lo: string; hi: string; at: string }>(
        'SELECT toString(count()) AS n, toString(min(_lo)) AS lo, toString(max(_hi)) AS hi, ' +
          `toString(toUnixTimestamp64Milli(max(_hi_at))) AS at FROM ${table} ` +
          'WHERE _day = {day:Date} AND _stream = {stream:String} AND _shard = {shard:UInt32} AND _block = {block:UInt64}',
        { day, stream: place.generation, shard, block: place.block },
      );
      if (row === undefined || row.n === '0') return undefined;
      return { lo: Number(row.lo), hi: Number(row.hi), hiAtMs: Number(row.at) };
    },
  };
}

/** Which batches are stored, and what of them. */
function createBatchReader(ask: Ask, table: string): StoredCopies & Pick<BlockStore, 'retriedSince'> {
  return {
    async fingerprints(batches) {
      const found = new Map<string, Fingerprint>();
      for (const chunk of chunksOf(batches)) {
        const rows = await ask<{ tenant: string; batch_id: string; events: string; sum3: string; sum2: string }>(
          `SELECT toString(tenant) AS tenant, batch_id, ${fingerprintFacts} FROM ${table} ` +
            `WHERE ${ofBatches} GROUP BY tenant, batch_id`,
          namesOf(chunk),
        );
        for (const row of rows) found.set(keyOf(row.tenant, row.batch_id), fingerprintFrom(row));
      }
      return batches.map(({ tenant, batchId }) => found.get(keyOf(tenant, batchId)) ?? noEvents);
    },

    eventCounts: (questions) => eventCounts(ask, table, questions),

    async retriedSince(sinceMs, max) {
      const rows = await ask<{ tenant: string; batch_id: string }>(
        `SELECT DISTINCT toString(tenant) AS tenant, batch_id FROM ${table} ` +
          "WHERE _attempt != 1 AND received_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC') AND tenant != '' " +
          'LIMIT {max:UInt32}',
        { since: Math.max(0, Math.floor(sinceMs)), max },
      );
      return rows.map((row) => ({ tenant: row.tenant, batchId: row.batch_id }));
    },
  };
}

export function createClickHouseBlockStore(clickhouse: ClickHouse, target: TableTarget, care?: StoreCare): BlockStore {
  const table = tableName(target);
  const mended = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      await care?.mender.mend(error);
      throw error;
    }
  };
  // LOAD-4
  const ask: Ask = <T>(query: string, parameters: Record<string, unknown>): Promise<T[]> =>
    mended(clickhouse.rows<T>(query, parameters, readingSettings(target)));

  async function send(block: Block, constants: BlockConstants, queryId: string): Promise<void> {
    if (block.rows === 0) {
      const { query, settings } = tombstoneStatement(target, constants);
      await clickhouse.command(query, { settings, queryId });
      return;
    }
    await clickhouse.insertBlock(
      insertStatement(target, constants, block.messages),
      queryId,
      sortByTenant(block.messages),
    );
  }

  return {
    ...createBlockReader(ask, table),
    ...createBatchReader(ask, table),

    async insert(shard, place, block) {
      const constants: BlockConstants = {
        day: block.day,
        stream: place.generation,
        shard,
        block: BigInt(place.block),
        lo: BigInt(block.lo),
        hi: BigInt(block.hi),
        accepted: block.rows,
        duplicate: block.duplicate,
        dead: block.dead,
        hiAtMs: block.lastTimeMs,
      };
      const queryId = blockName(constants);
      try {
        await mended(send(block, constants, queryId));
        care?.stale.over(shard);
      } catch (error) {
        if (error instanceof StatementError && error.kind === 'busy') await care?.stale.busy(shard, queryId);
        throw error;
      }
    },

    async trial(messages, suspect) {
      try {
        await clickhouse.insertBlock(trialStatement(), `sluice-trial-${randomUUID()}`, messages);
        return undefined;
      } catch (error) {
        if (!(error instanceof StatementError)) throw error;
        const refused = error.kind === 'content' || (error.kind === 'unclear' && error.clickhouseCode === suspect);
        if (!refused) throw error;
        return error.message;
      }
    },

    classify(error) {
      return error instanceof StatementError ? error.kind : 'transient';
    },

    onRecovered: (listener) => clickhouse.onRecovered(listener),
  };
}
