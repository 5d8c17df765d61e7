/**
 * What it costs the loader to find out which batches of a block are stored already (workers/loader/dedup.ts), with the real engine: a block of
 * first sends, of batches whose clients do not number their sends, of retries, and of batch ids that are used again for other events.
 *
 *   node --import tsx bench/retry-look-up.ts [--stored 1000000] [--batch 500] [--rounds 7]
 *
 * Prints the median time and CPU of this process for a block of 100,000 events; an INSERT of such a block takes ClickHouse about half a second.
 */
import { parseArgs } from 'node:util';
import { clickhouseClientOptions, resolveOptions } from '../lib/config/index.js';
import { silentLogger } from '../lib/logger.js';
import { seededRandom } from '../lib/testing/batches.js';
import { withClickHouse } from '../lib/testing/clickhouse.js';
import { connectClickHouse } from '../workers/clickhouse/client.js';
import { eventsTable } from '../workers/clickhouse/connect.js';
import { prepareTable } from '../workers/clickhouse/prepare-table.js';
import { type Block, startBlock } from '../workers/loader/block.js';
import { clickhouseBlockStore } from '../workers/loader/block-store.js';
import { createDeduplicator } from '../workers/loader/dedup.js';
import { storedPayload } from '../workers/testing/payloads.js';

const { values } = parseArgs({
  options: {
    stored: { type: 'string', default: '1000000' },
    batch: { type: 'string', default: '500' },
    rounds: { type: 'string', default: '7' },
  },
});
const [stored, events, rounds] = [values.stored, values.batch, values.rounds].map(Number) as [number, number, number];
const blockEvents = 100_000;
const batches = Math.ceil(blockEvents / events);

const median = (of: readonly number[]): number => [...of].sort((a, b) => a - b)[of.length >> 1] ?? 0;

function blockOf(first: number, payloads: readonly Uint8Array[]): Block {
  const cutter = startBlock({ rows: 1e9, bytes: 1e9, delayMs: 1 });
  payloads.forEach((data, i) => void cutter.add({ sequence: first + i, timeMs: Date.now(), data }, 0));
  return cutter.cut('rows');
}

await withClickHouse(async ({ url }) => {
  const config = resolveOptions(clickhouseClientOptions, { clickhouseUrl: url }, {});
  const warehouse = connectClickHouse(config, silentLogger);
  const target = eventsTable('sluice');
  await prepareTable(warehouse, target);
  const sink = clickhouseBlockStore(warehouse, target);
  const random = seededRandom(1);
  const payload = (name: string, attempt: number): Uint8Array =>
    storedPayload(random, { tenant: 'acme', batchId: name, events, attempt });
  /** With another attempt: field 4 of the metadata. */
  const again = (of: Uint8Array): Uint8Array => {
    const copy = Buffer.from(of);
    copy[copy.indexOf(Buffer.from([0x20, 0x01])) + 1] = 2;
    return copy;
  };
  let sequence = 1;
  let known: Uint8Array[] = [];
  for (let block = 1; (block - 1) * blockEvents < stored; block++) {
    known = Array.from({ length: batches }, (_, i) => payload(`b-${block}-${i}`, 1));
    await sink.insert(0, { generation: 'g', block }, blockOf(sequence, known));
    sequence += batches;
  }
  const last = Math.ceil(stored / blockEvents);
  const cases: Record<string, Block> = {
    'first sends': blockOf(
      sequence,
      Array.from({ length: batches }, (_, i) => payload(`n-${i}`, 1)),
    ),
    'first sends, attempt unknown': blockOf(
      sequence,
      Array.from({ length: batches }, (_, i) => payload(`n-${i}`, 0)),
    ),
    retries: blockOf(sequence, known.map(again)),
    'ids used again': blockOf(
      sequence,
      Array.from({ length: batches }, (_, i) => payload(`b-${last}-${i}`, 0)),
    ),
  };
  const times = new Map<string, { ms: number[]; cpu: number[]; left: string }>();
  for (let round = 0; round <= rounds; round++) {
    for (const [name, block] of Object.entries(cases)) {
      const dedup = createDeduplicator(sink);
      const before = process.cpuUsage();
      const since = performance.now();
      const planned = await dedup.plan(block);
      const ms = performance.now() - since;
      const { user, system } = process.cpuUsage(before);
      // The first round warms up.
      if (round === 0) continue;
      const of = times.get(name) ?? { ms: [], cpu: [], left: '' };
      of.ms.push(ms);
      of.cpu.push((user + system) / 1_000);
      times.set(name, { ...of, left: `${planned.rows} stored, ${planned.duplicate} duplicate` });
    }
  }
  for (const [name, { ms, cpu, left }] of times) {
    process.stdout.write(
      `${name.padEnd(30)} ${median(ms).toFixed(1).padStart(8)} ms  ${median(cpu).toFixed(1).padStart(8)} ms CPU  ${left}\n`,
    );
  }
  await warehouse.close();
});
