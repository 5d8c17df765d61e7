/**
 * What it costs the warehouse's engine to store a block and to merge blocks, and what each choice in the table saves: the
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
import { median } from '../medians.js';
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

async function measure(engine: Engine, folder: string, options: InsertOptions): Promise<void> {
  const chosen = variants.filter(({ name }) => options.only === undefined || name.includes(options.only));
  if (chosen.length === 0) throw new Error(`no variant is called "${options.only}"`);
  const known = new Set((await text(engine, 'SELECT name FROM system.merge_tree_settings')).split('\n'));
  await text(engine, 'CREATE DATABASE sluice');
  const tables = chosen.map((variant, i) => ({
    variant,
    target: { database: 'sluice', table: `t${i}`, engine: 'MergeTree' } as TableTarget,
    inserts: [] as number[],
  }));
  for (const { variant, target } of tables) {
    const create = createStatements(target)[1] as string;
    await text(engine, variant.table?.(create) ?? create);
    for (const statement of settingStatements(target, known, '')) await text(engine, statement);
    if (variant.settings !== undefined) {
      await text(engine, `ALTER TABLE sluice.${target.table} MODIFY SETTING ${variant.settings}`);
    }
    await text(engine, `SYSTEM STOP MERGES sluice.${target.table}`);
  }
  // The first block is not counted: memory, caches.
  for (let number = 0; number <= options.blocks; number++) {
    process.stderr.write(`insert: block ${number} of ${options.blocks}\n`);
    const messages = makeBlock(number, options);
    const bodies = { came: 1, arranged: 2 };
    writeFileSync(spoolFile(folder, bodies.came), Buffer.concat(messages));
    writeFileSync(spoolFile(folder, bodies.arranged), Buffer.concat(sortByTenant(messages)));
    for (let k = 0; k < tables.length; k++) {
      const { variant, target, inserts } = tables[(k + number) % tables.length] as (typeof tables)[number];
      const constants = {
        day: '2026-03-01',
        stream: '1700000000000000000',
        shard: number % 2,
        block: BigInt(number + 1),
        lo: BigInt(number * messages.length + 1),
        hi: BigInt((number + 1) * messages.length),
        accepted: options.rows,
        duplicate: 0,
        dead: 0,
      };
      const { query, settings } = insertStatement(target, constants, variant.allColumns ? undefined : messages);
      const url = new URLSearchParams();
      for (const [name, value] of Object.entries(settings)) url.set(name, String(value));
      const body = variant.asTheyCame ? bodies.came : bodies.arranged;
      const before = cpuSeconds();
      const statement = variant.insert?.(query) ?? query;
      await engine.run(
        withSettings(
          readFromSpool(statement, (format, structure) => spooled(body, format, structure)),
          url,
        ),
        {
          format: 'TSV',
          database: 'default',
          parameters: {},
          withData: true,
        },
      );
      if (number > 0) inserts.push(((cpuSeconds() - before) / options.rows) * 1e6);
    }
  }
  const rows = options.rows * (options.blocks + 1);
  const size = async (table: string): Promise<number> =>
    Number(
      await text(
        engine,
        `SELECT sum(bytes_on_disk) FROM system.parts WHERE database = 'sluice' AND table = '${table}' AND active`,
      ),
    ) / rows;
  const heads = [
    'table',
    'insert',
    'least',
    'B/row',
    ...(options.merge ? ['merge', 'B/row merged', 'insert + merge, to the first'] : []),
  ];
  process.stdout.write(`CPU-s per million rows; blocks of ${options.rows}, ${options.tenants} tenants\n`);
  process.stdout.write(`${heads.join(' | ')}\n`);
  let first = Number.NaN;
  for (const { variant, target, inserts } of tables) {
    const insert = median(inserts);
    const least = Math.min(...inserts);
    const bytes = await size(target.table);
    let merge = Number.NaN;
    let merged = Number.NaN;
    if (options.merge) {
      const before = cpuSeconds();
      await text(engine, `SYSTEM START MERGES sluice.${target.table}`);
      await text(engine, `OPTIMIZE TABLE sluice.${target.table} FINAL`);
      merge = ((cpuSeconds() - before) / rows) * 1e6;
      merged = await size(target.table);
    }
    const all = insert + (options.merge ? merge : 0);
    first = Number.isNaN(first) ? all : first;
    const cells = [insert, least, bytes, ...(options.merge ? [merge, merged, all / first] : [])].map((n, i) =>
      n.toFixed(i === 2 || i === 4 ? 1 : 2),
    );
    process.stdout.write(`${[variant.name, ...cells].join(' | ')}\n`);
    if (options.json) {
      const line = {
        case: 'insert',
        table: variant.name,
        insert_cpu_s_per_million: insert,
        insert_least: least,
        bytes_per_row: bytes,
        ...(options.merge ? { merge_cpu_s_per_million: merge, merged_bytes_per_row: merged, ratio: all / first } : {}),
      };
      process.stdout.write(`${JSON.stringify(line)}\n`);
    }
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
