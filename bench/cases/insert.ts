/**
 * What it costs ClickHouse to store a block and to merge blocks, and what each choice in the table saves: the
 * same blocks go in turn into tables that each undo one choice. In this process, with the embedded engine: all CPU time
 * counts, and holds no other.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import {
  createStatements,
  insertStatement,
  settingStatements,
  type TableTarget,
} from '../../workers/clickhouse/schema/index.js';
import { type Engine, openEngine } from '../../workers/embedded/engine.js';
import { spooled, spoolFile } from '../../workers/embedded/rights.js';
import { readFromSpool, withSettings } from '../../workers/embedded/statement.js';
import { sortByTenant } from '../../workers/loader/sort-by-tenant.js';
import { median, rotated } from '../medians.js';
import { positive } from '../options.js';
import { patch, prepare } from '../payload.js';

interface InsertOptions {
  readonly blocks: number;
  readonly rows: number;
  readonly tenants: number;
  readonly only: string | undefined;
  readonly merge: boolean;
  readonly json: boolean;
}

interface Variant {
  readonly name: string;
  /** Changes the CREATE statement. */
  readonly table?: (statement: string) => string;
  /** Settings of the table that are undone. */
  readonly settings?: string;
  /** Changes the INSERT statement. */
  readonly insert?: (statement: string) => string;
  /** Every column is named, also those that the block has nothing for. */
  readonly allColumns?: boolean;
  /** The messages as the log has them, not by tenant. */
  readonly asTheyCame?: boolean;
}

const without = (what: RegExp, by = '') => {
  return (statement: string): string => {
    const changed = statement.replace(what, by);
    if (changed === statement) throw new Error(`the CREATE statement has no ${what} any more`);
    return changed;
  };
};
const sortedByType = without(/ORDER BY \(tenant, /, 'ORDER BY (tenant, type, ');
const plainIds = without(/ CODEC\(ZSTD\(1\)\)/g);
const wide = 'min_bytes_for_wide_part = 10485760';
const statistics = "auto_statistics_types = 'basic, uniq_v2'";

/** Stores nothing. */
const nowhere = "INSERT INTO FUNCTION null('x UInt64') SELECT";
const inputOf = (statement: string): string => {
  const found = /input\('(?:[^'\\]|\\.)*'\)/.exec(statement)?.[0];
  if (found === undefined) throw new Error('the INSERT statement reads no input(…) any more');
  return found;
};

/** The first is what Sluice does; each other one undoes one thing, then everything; the last ones store nothing. */
const variants: readonly Variant[] = [
  { name: 'as it is' },
  { name: 'all columns', allColumns: true },
  { name: 'messages as they came', asTheyCame: true },
  { name: 'sorted by type too', table: sortedByType },
  { name: 'wide parts', settings: wide },
  { name: 'ids with LZ4', table: plainIds },
  { name: 'statistics on merge', settings: statistics },
  { name: 'no ledger of blocks', table: without(/,\s*PROJECTION blocks \([\s\S]*?_block\)(?=\n)/) },
  { name: 'text without dictionaries', table: without(/LowCardinality\(String\)/g, 'String') },
  {
    name: 'all undone',
    table: (statement) => plainIds(sortedByType(statement)),
    settings: `${wide}, ${statistics}`,
    asTheyCame: true,
    allColumns: true,
  },
  {
    name: '(only reading)',
    insert: (statement) => `${nowhere} length(events) FROM ${inputOf(statement)} FORMAT Protobuf`,
  },
  {
    name: '(only reading and the SELECT)',
    insert: (statement) =>
      statement.replace(/^INSERT .*? SELECT (.*?) FROM \(SELECT events/, `${nowhere} ignore($1) FROM (SELECT events`),
  },
];

const eventsOfBatch = 500;

/** The messages of a block, with ids that no other block has. */
function makeBlock(number: number, { rows, tenants }: InsertOptions): Buffer[] {
  return Array.from({ length: Math.ceil(rows / eventsOfBatch) }, (_, i) => {
    const seed = number * 100_003 + i + 1;
    const prepared = prepare({
      target: 'log',
      events: Math.min(eventsOfBatch, rows - i * eventsOfBatch),
      seed,
      tenant: `tenant-${(seed * 7919) % tenants}`,
    });
    patch(prepared, { run: 1, slot: i, number: seed }, Date.now());
    return prepared.bytes;
  });
}

const cpuSeconds = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

const text = async (engine: Engine, statement: string): Promise<string> => {
  const plain = { format: 'TSV', database: 'default', parameters: {}, withData: false };
  return Buffer.from((await engine.run(statement, plain)).bytes)
    .toString()
    .trim();
};

interface Table {
  readonly variant: Variant;
  readonly target: TableTarget;
  /** CPU-seconds per million rows, of each counted block. */
  readonly inserts: number[];
}

/** A table of each variant, with merges stopped. @throws Error when no variant is meant */
async function createTables(engine: Engine, only: string | undefined): Promise<Table[]> {
  const chosen = variants.filter(({ name }) => only === undefined || name.includes(only));
  if (chosen.length === 0) throw new Error(`no variant is called "${only}"`);
  const known = new Set((await text(engine, 'SELECT name FROM system.merge_tree_settings')).split('\n'));
  await text(engine, 'CREATE DATABASE sluice');
  const tables: Table[] = [];
  for (const [i, variant] of chosen.entries()) {
    const target: TableTarget = { database: 'sluice', table: `t${i}`, engine: 'MergeTree' };
    const create = createStatements(target)[1] as string;
    await text(engine, variant.table?.(create) ?? create);
    for (const statement of settingStatements(target, known, '')) await text(engine, statement);
    if (variant.settings !== undefined) {
      await text(engine, `ALTER TABLE sluice.${target.table} MODIFY SETTING ${variant.settings}`);
    }
    await text(engine, `SYSTEM STOP MERGES sluice.${target.table}`);
    tables.push({ variant, target, inserts: [] });
  }
  return tables;
}

const bodies = { asTheyCame: 1, byTenant: 2 } as const;

/** @returns CPU-seconds */
async function insertBlock(engine: Engine, table: Table, number: number, messages: readonly Buffer[], rows: number) {
  const { variant, target } = table;
  const place = {
    shard: number % 2,
    block: BigInt(number + 1),
    lo: BigInt(number * messages.length + 1),
    hi: BigInt((number + 1) * messages.length),
  };
  const constants = {
    day: '2026-03-01',
    stream: '1700000000000000000',
    ...place,
    accepted: rows,
    duplicate: 0,
    dead: 0,
  };
  const { query, settings } = insertStatement(target, constants, variant.allColumns ? undefined : messages);
  const url = new URLSearchParams(
    Object.fromEntries(Object.entries(settings).map(([name, value]) => [name, String(value)])),
  );
  const body = variant.asTheyCame ? bodies.asTheyCame : bodies.byTenant;
  const statement = readFromSpool(variant.insert?.(query) ?? query, (format, structure) =>
    spooled(body, format, structure),
  );
  const before = cpuSeconds();
  await engine.run(withSettings(statement, url), {
    format: 'TSV',
    database: 'default',
    parameters: {},
    withData: true,
  });
  return cpuSeconds() - before;
}

interface Figures {
  /** CPU-seconds per million rows: the median, and the least. */
  readonly insert: number;
  readonly least: number;
  readonly bytes: number;
  /** Of merging all blocks to one part. */
  readonly merged?: { readonly cpu: number; readonly bytes: number };
}

/** @param rows that the table holds */
async function figuresOf(engine: Engine, { target, inserts }: Table, rows: number, merge: boolean): Promise<Figures> {
  const where = `database = 'sluice' AND table = '${target.table}' AND active`;
  const size = async () =>
    Number(await text(engine, `SELECT sum(bytes_on_disk) FROM system.parts WHERE ${where}`)) / rows;
  const figures = { insert: median(inserts), least: Math.min(...inserts), bytes: await size() };
  if (!merge) return figures;
  const before = cpuSeconds();
  await text(engine, `SYSTEM START MERGES sluice.${target.table}`);
  await text(engine, `OPTIMIZE TABLE sluice.${target.table} FINAL`);
  const cpu = ((cpuSeconds() - before) / rows) * 1e6;
  return { ...figures, merged: { cpu, bytes: await size() } };
}

async function measure(engine: Engine, folder: string, options: InsertOptions): Promise<void> {
  const { blocks, rows, tenants, merge, json } = options;
  const tables = await createTables(engine, options.only);
  // The first block is not counted: memory, caches.
  for (let number = 0; number <= blocks; number++) {
    process.stderr.write(`insert: block ${number} of ${blocks}\n`);
    const messages = makeBlock(number, options);
    writeFileSync(spoolFile(folder, bodies.asTheyCame), Buffer.concat(messages));
    writeFileSync(spoolFile(folder, bodies.byTenant), Buffer.concat(sortByTenant(messages)));
    for (const table of rotated(tables, number)) {
      const cpu = await insertBlock(engine, table, number, messages, rows);
      if (number > 0) table.inserts.push((cpu / rows) * 1e6);
    }
  }
  const heads = ['table', 'insert', 'least', 'B/row'];
  if (merge) heads.push('merge', 'B/row merged', 'insert + merge, to the first');
  process.stdout.write(`CPU-s per million rows; blocks of ${rows}, ${tenants} tenants\n${heads.join(' | ')}\n`);
  let first: number | undefined;
  for (const table of tables) {
    const { insert, least, bytes, merged } = await figuresOf(engine, table, rows * (blocks + 1), merge);
    const all = insert + (merged?.cpu ?? 0);
    first ??= all;
    const cells = [insert.toFixed(2), least.toFixed(2), bytes.toFixed(1)];
    if (merged !== undefined) cells.push(merged.cpu.toFixed(2), merged.bytes.toFixed(1), (all / first).toFixed(2));
    process.stdout.write(`${[table.variant.name, ...cells].join(' | ')}\n`);
    if (!json) continue;
    const stored = { insert_cpu_s_per_million: insert, insert_least: least, bytes_per_row: bytes };
    const after = merged && {
      merge_cpu_s_per_million: merged.cpu,
      merged_bytes_per_row: merged.bytes,
      ratio: all / first,
    };
    process.stdout.write(`${JSON.stringify({ case: 'insert', table: table.variant.name, ...stored, ...after })}\n`);
  }
}

export function insertCommand(): Command {
  return new Command('insert')
    .description('the engine alone: CPU of storing and of merging blocks, and what each choice in the table saves')
    .option('--blocks <n>', 'blocks for each table, the first of all not counted', positive(64), 5)
    .option('--rows <n>', 'rows of a block', positive(1_000_000), 200_000)
    .option('--tenants <n>', 'tenants in a block', positive(10_000), 8)
    .option('--only <text>', 'only tables with this in their name')
    .option('--no-merge', 'do not merge at the end')
    .option('--json', 'a line of JSON for each table as well', false)
    .action(async (options: InsertOptions) => {
      const back = process.cwd();
      const folder = mkdtempSync(join(tmpdir(), 'sluice-insert-'));
      // The engine writes a cache of format schemas to the folder that it runs in.
      mkdirSync(join(folder, 'store'));
      process.chdir(folder);
      try {
        const engine = await openEngine(join(folder, 'store'), {
          spoolFolder: folder,
          rightsFolder: join(folder, 'rights'),
          threads: 4,
        });
        try {
          await measure(engine, folder, options);
        } finally {
          await engine.close();
        }
      } finally {
        process.chdir(back);
        rmSync(folder, { recursive: true, force: true });
      }
    });
}
