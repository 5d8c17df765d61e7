/**
 * `npm run bench -- formats`: the worker's side. The stored bytes handed to ClickHouse as they are (FORMAT Protobuf), beside
 * what a worker would do that decodes them and writes rows (row-formats.ts). The same batches, the same table, the embedded
 * engine; CPU of both sides, interleaved, medians. What each stored is compared at the end.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import { Command } from 'commander';
import type protobuf from 'protobufjs';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { clickhouseClientOptions, resolveOptions } from '../../lib/config/index.js';
import { silentLogger } from '../../lib/logger.js';
import { encodeBatch, makeBatch, seededRandom } from '../../lib/testing/batches.js';
import { withClickHouse } from '../../lib/testing/clickhouse.js';
import { type ClickHouse, connectClickHouse } from '../../workers/clickhouse/client.js';
import { eventsTable } from '../../workers/clickhouse/connect.js';
import { prepareTable } from '../../workers/clickhouse/prepare-table.js';
import { insertStatement } from '../../workers/clickhouse/schema/index.js';
import { cpuSeconds } from '../cpu.js';
import { positive } from '../options.js';
import { loadProto } from '../peers/protobufjs-contract.js';
import { encodeRows, type RowBatch, type RowFormat, rowColumns, rowStructure } from './row-formats.js';
import { median } from './turns.js';

export interface FormatsOptions {
  readonly rows: number;
  readonly rounds: number;
  readonly progress: (line: string) => void;
}

export interface FormatResult {
  readonly name: string;
  readonly rows_per_cpu_s: number;
  /** CPU seconds per million rows: reading, encoding and sending in Node, and the engine's insert without merges. */
  readonly cpu_s_per_million: { readonly node: number; readonly engine: number };
  readonly bytes_per_row: number;
  /** How many times the CPU of the pass-through: median of ratios inside a round. */
  readonly cpu_ratio: number;
}

const passThrough = 'Protobuf, passed through';
const rowFormats: readonly RowFormat[] = ['JSONEachRow', 'RowBinary', 'Native'];
const names = [passThrough, ...rowFormats];
const target = eventsTable('sluice');
const batchEvents = 500;

/** Stored batches as a gateway writes them, without their length. */
function storedBatches(rows: number): Uint8Array[] {
  const random = seededRandom(1);
  return Array.from({ length: Math.ceil(rows / batchEvents) }, (_, i) => {
    const meta = toBinary(
      StoredBatchSchema,
      create(StoredBatchSchema, {
        tenant: 'bench',
        batchId: `b-${i}`,
        attempt: 1,
        receivedAt: { seconds: 1_767_225_600n, nanos: 5_000_000 },
        eventCount: batchEvents,
        contract: '0123456789abcdef',
        client: 'bench/0.1.0',
      }),
    );
    return Buffer.concat([meta, encodeBatch(makeBatch(random, batchEvents))]);
  });
}

function delimited(bytes: Uint8Array): Uint8Array {
  const size: number[] = [];
  for (let rest = bytes.length; ; rest >>>= 7) {
    size.push(rest < 128 ? rest : (rest & 127) | 128);
    if (rest < 128) return Buffer.concat([Uint8Array.from(size), bytes]);
  }
}

const rowStatement = (format: RowFormat) => {
  const columns = rowColumns.map(({ name }) => `\`${name}\``).join(', ');
  const { settings } = insertStatement(target, constantsOf(0), undefined);
  const { max_insert_threads, max_threads, async_insert, min_insert_block_size_rows, min_insert_block_size_bytes } =
    settings;
  const { max_insert_block_size, max_block_size, insert_deduplicate } = settings;
  const structure = `'${rowStructure.replace(/\\/g, '\\\\').replace(/'/g, "\\'")}'`;
  return {
    query: `INSERT INTO sluice.events (${columns}) SELECT ${columns} FROM input(${structure}) FORMAT ${format}`,
    // The same way into the table: one thread, one part.
    settings: Object.fromEntries(
      Object.entries({
        max_insert_threads,
        max_threads,
        async_insert,
        min_insert_block_size_rows,
        min_insert_block_size_bytes,
        max_insert_block_size,
        max_block_size,
        insert_deduplicate,
      }).filter((entry): entry is [string, string | number] => entry[1] !== undefined),
    ),
  };
};

const constantsOf = (block: number) => ({
  day: '2026-03-01',
  stream: 'bench',
  shard: 0,
  block: BigInt(block),
  lo: BigInt(block),
  hi: BigInt(block),
  accepted: 0,
  duplicate: 0,
  dead: 0,
});

interface Shot {
  readonly node: number;
  readonly engine: number;
  readonly bytes: number;
}

/** @throws Error when the ways do not store the same */
export async function compareFormats(options: FormatsOptions): Promise<FormatResult[]> {
  const stored = storedBatches(options.rows);
  const payloads = stored.map(delimited);
  const rows = stored.length * batchEvents;
  const type = loadProto().lookupType('sluice.log.v1.StoredBatch');
  return withClickHouse(async ({ url, process: engine }) => {
    const warehouse = connectClickHouse(
      resolveOptions(clickhouseClientOptions, { clickhouseUrl: url }, {}),
      silentLogger,
    );
    try {
      await prepareTable(warehouse, target);
      await warehouse.command('SYSTEM STOP MERGES sluice.events');
      const pid = engine().pid ?? 0;
      const shots = new Map<string, Shot[]>(names.map((name) => [name, []]));
      // Round 0 warms both sides and is compared, not counted.
      let block = 0;
      for (let round = 0; round <= options.rounds; round++) {
        for (let i = 0; i < names.length; i++) {
          const name = names[(i + round) % names.length] as string;
          block++;
          const shot = await shoot(warehouse, name, { stored, payloads, type, block, pid });
          if (round > 0) shots.get(name)?.push(shot);
          options.progress(
            `round ${round} of ${options.rounds}, ${name}: ${(((shot.node + shot.engine) / rows) * 1e6).toFixed(2)} CPU-s/million rows`,
          );
        }
      }
      await checkSame(warehouse, rows);
      const base = shots.get(passThrough) as Shot[];
      return names.map((name) => {
        const list = shots.get(name) as Shot[];
        const perMillion = (pick: (shot: Shot) => number) => (median(list.map(pick)) / rows) * 1e6;
        const cpu = (shot: Shot) => shot.node + shot.engine;
        return {
          name,
          rows_per_cpu_s: 1e6 / perMillion(cpu),
          cpu_s_per_million: { node: perMillion((shot) => shot.node), engine: perMillion((shot) => shot.engine) },
          bytes_per_row: median(list.map((shot) => shot.bytes)) / rows,
          cpu_ratio: median(list.map((shot, i) => cpu(shot) / cpu(base[i] as Shot))),
        };
      });
    } finally {
      await warehouse.close();
    }
  });
}

interface Material {
  readonly stored: readonly Uint8Array[];
  readonly payloads: readonly Uint8Array[];
  readonly type: protobuf.Type;
  readonly block: number;
  readonly pid: number;
}

async function shoot(warehouse: ClickHouse, name: string, material: Material): Promise<Shot> {
  const { stored, payloads, type, block, pid } = material;
  const engineBefore = cpuSeconds(pid);
  const before = process.cpuUsage();
  let bytes = 0;
  if (name === passThrough) {
    bytes = payloads.reduce((n, payload) => n + payload.length, 0);
    await warehouse.insertBlock(insertStatement(target, constantsOf(block), payloads), `bench-${block}`, payloads);
  } else {
    const format = name as RowFormat;
    const batches = stored.map((one) => type.decode(one) as unknown as RowBatch);
    const body = encodeRows(format, batches, block);
    bytes = body.length;
    // In pieces, as payloads come: one write of all would measure how Node copes with that.
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < body.length; at += 65_536) pieces.push(body.subarray(at, at + 65_536));
    await warehouse.insertBlock(rowStatement(format), `bench-${block}`, pieces);
  }
  const { user, system } = process.cpuUsage(before);
  return { node: (user + system) / 1e6, engine: cpuSeconds(pid) - engineBefore, bytes };
}

/** Every way stored the same rows: a hash over all columns but those that name the block, and the batch's hash. */
async function checkSame(warehouse: ClickHouse, rows: number): Promise<void> {
  const columns = rowColumns
    .map(({ name }) => name)
    .filter((name) => !['_block', '_lo', '_hi', '_batch'].includes(name));
  const found = await warehouse.rows<{ block: string; rows: string; hash: string }>(
    `SELECT toString(_block) AS block, toString(count()) AS rows, toString(groupBitXor(cityHash64(toString(tuple(${columns.map((name) => `\`${name}\``).join(', ')}))))) AS hash ` +
      `FROM sluice.events WHERE _block <= ${names.length} GROUP BY _block ORDER BY _block SETTINGS optimize_use_projections = 0`,
  );
  const hashes = new Set(found.map(({ hash }) => hash));
  if (found.length !== names.length || found.some((one) => Number(one.rows) !== rows) || hashes.size !== 1) {
    throw new Error(`the formats did not store the same rows: ${JSON.stringify(found)}`);
  }
}

interface CommandLine {
  readonly rows: number;
  readonly rounds: number;
  readonly json: boolean;
}

export function formatsCommand(): Command {
  return new Command('formats')
    .description(
      'the worker: stored bytes passed through to ClickHouse, beside JSONEachRow, RowBinary and Native made in TypeScript',
    )
    .option('--rows <n>', 'rows of a block', positive(500_000), 100_000)
    .option('--rounds <n>', 'rounds, of which the median counts', positive(1_000), 5)
    .option('--json', 'end standard output with one line of JSON', false)
    .addHelpText(
      'after',
      `
Every way inserts the same events into the same table of the embedded engine, one part an insert, merges stopped. The
three row formats decode the stored bytes with protobufjs (the faster decoder) and encode rows in TypeScript; node is the
CPU of that and of sending, engine that of the insert. What they stored is compared, all columns, before figures are shown.`,
    )
    .action(async ({ rows, rounds, json }: CommandLine) => {
      const results = await compareFormats({
        rows,
        rounds,
        progress: (line) => process.stderr.write(`formats: ${line}\n`),
      });
      process.stdout.write(`blocks of ${rows} rows, median of ${rounds} rounds; CPU-s per million rows\n`);
      process.stdout.write(
        `${''.padEnd(28)}${'node'.padStart(8)}${'engine'.padStart(8)}${'sum'.padStart(8)}${'ratio'.padStart(8)}${'B/row'.padStart(8)}\n`,
      );
      for (const { name, cpu_s_per_million: cpu, cpu_ratio, bytes_per_row } of results) {
        const figures = [cpu.node, cpu.engine, cpu.node + cpu.engine, cpu_ratio].map((value) =>
          value.toFixed(2).padStart(8),
        );
        process.stdout.write(`${name.padEnd(28)}${figures.join('')}${bytes_per_row.toFixed(0).padStart(8)}\n`);
      }
      if (json) process.stdout.write(`${JSON.stringify({ case: 'formats', rows, rounds, results })}\n`);
    });
}
