/**
 * What the loader asks of the warehouse: the last block of a shard, one block by number, insert-if-absent.
 */
import { byTenant } from './arrange.js';
import type { Block } from './block.js';
import type { InsertFailure, Place } from './loader.js';
import { type BlockConstants, blockName, insertStatement, type TableTarget } from './schema/index.js';
import { type Warehouse, WarehouseError } from './warehouse.js';

export interface LastBlock {
  /** 0 when there is none. */
  readonly block: number;
  readonly hi: number;
  readonly others: readonly { readonly generation: string; readonly hi: number }[];
}

export interface Sink {
  /** @param fromDay where to look first: no block that matters begins before, as long as one is found from there on. */
  lastBlock(shard: number, generation: string, fromDay: string | undefined): Promise<LastBlock>;
  readBack(shard: number, place: Place, day: string): Promise<{ lo: number; hi: number } | undefined>;
  insert(shard: number, place: Place, block: Block): Promise<void>;
  classify(error: unknown): InsertFailure;
  /** Calls back when the warehouse answers again, after it has not. Returns the un-subscriber. */
  onRecovered(listener: () => void): () => void;
}

/** `database.table`, quoted. */
export const tableName = (target: TableTarget): string => `\`${target.database}\`.\`${target.table}\``;

export function warehouseSink(warehouse: Warehouse, target: TableTarget): Sink {
  const table = tableName(target);
  return {
    async lastBlock(shard, generation, fromDay) {
      if (fromDay !== undefined) {
        const [near] = await warehouse.rows<{ n: string; block: string; hi: string }>(
          `SELECT toString(count()) AS n, toString(max(_block)) AS block, toString(max(_hi)) AS hi FROM ${table} ` +
            'WHERE _day >= {day:Date} AND _stream = {stream:String} AND _shard = {shard:UInt32}',
          { day: fromDay, stream: generation, shard },
        );
        if (near !== undefined && near.n !== '0') {
          return { block: Number(near.block), hi: Number(near.hi), others: [] };
        }
      }
      const all = await warehouse.rows<{ stream: string; block: string; hi: string }>(
        `SELECT toString(_stream) AS stream, toString(max(_block)) AS block, toString(max(_hi)) AS hi FROM ${table} ` +
          'WHERE _shard = {shard:UInt32} GROUP BY stream',
        { shard },
      );
      const own = all.find((row) => row.stream === generation);
      return {
        block: Number(own?.block ?? 0),
        hi: Number(own?.hi ?? 0),
        others: own === undefined ? all.map((row) => ({ generation: row.stream, hi: Number(row.hi) })) : [],
      };
    },

    async readBack(shard, place, day) {
      const [row] = await warehouse.rows<{ n: string; lo: string; hi: string }>(
        `SELECT toString(count()) AS n, toString(min(_lo)) AS lo, toString(max(_hi)) AS hi FROM ${table} ` +
          'WHERE _day = {day:Date} AND _stream = {stream:String} AND _shard = {shard:UInt32} AND _block = {block:UInt64}',
        { day, stream: place.generation, shard, block: place.block },
      );
      return row === undefined || row.n === '0' ? undefined : { lo: Number(row.lo), hi: Number(row.hi) };
    },

    async insert(shard, place, block) {
      const constants: BlockConstants = {
        day: block.day,
        stream: place.generation,
        shard,
        block: BigInt(place.block),
        lo: BigInt(block.lo),
        hi: BigInt(block.hi),
        accepted: block.rows,
        duplicate: 0, // L5
        dead: 0, // L6
      };
      const statement = insertStatement(target, constants, block.messages);
      await warehouse.insertBlock(statement, blockName(constants), byTenant(block.messages));
    },

    classify(error) {
      return error instanceof WarehouseError ? error.kind : 'transient';
    },

    onRecovered: (listener) => warehouse.onRecovered(listener),
  };
}
