/**
 * Legal but odd encodings through the real INSERT, and every column compared with what a full decoder sees: fields in any order, padded
 * varints, unknown fields, defaults written out, empty messages, map entries turned round.
 */
import { type DescField, type DescMessage, fromBinary, ScalarType } from '@bufbuild/protobuf';
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import * as assert from 'uvu/assert';
import { EventBatchSchema, EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { clickhouseClientOptions, resolveOptions } from '../../lib/config/index.js';
import { silentLogger } from '../../lib/logger.js';
import { createRandom } from '../../lib/testing/batches.js';
import { withClickHouse } from '../../lib/testing/clickhouse.js';
import { acceptedCorpus } from '../../lib/testing/corpus.js';
import { type ClickHouse, createClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import { prepareTable } from '../clickhouse/prepare-table.js';
import { type BlockConstants, blockName, insertStatement } from '../clickhouse/schema/index.js';
import { storedPayload } from './payloads.js';

export interface AgreementBlocks {
  /** Number of the first block; block n has the corpus of one seed. */
  readonly from: number;
  /** Blocks of at most four batches, most of which lack some columns altogether (field-presence.ts). */
  readonly small: number;
  /** Blocks of {@link batchesPerBlock}. */
  readonly large: number;
}

export const batchesPerBlock = 2_500;
const seed = 20_261;

interface StoredColumn {
  readonly column: string;
  /** Gives text, number or an object of them. */
  readonly select: string;
  /** The same from a decoded message; undefined when the message it is in is absent. */
  readonly value: (message: Record<string, unknown> | undefined) => unknown;
}

/** The decoder's view of a column, from the descriptors alone: not from the code under test. */
function columns(desc: DescMessage, prefix = ''): StoredColumn[] {
  return desc.fields.flatMap((field: DescField): StoredColumn[] => {
    const column = `${prefix}${field.name}`;
    const own = (message: Record<string, unknown> | undefined): unknown => message?.[field.localName];
    if (field.fieldKind === 'map') {
      return [{ column, select: column, value: (message) => own(message) ?? {} }];
    }
    if (field.fieldKind === 'message' && field.message.typeName === 'google.protobuf.Timestamp') {
      return [
        {
          column,
          select: `toString(toUnixTimestamp64Nano(${column}))`,
          value: (message) => {
            const at = own(message) as Timestamp | undefined;
            return String((at?.seconds ?? 0n) * 1_000_000_000n + BigInt(at?.nanos ?? 0));
          },
        },
      ];
    }
    if (field.fieldKind === 'message') {
      return columns(field.message, `${column}_`).map((inner) => ({
        ...inner,
        value: (message) => inner.value(own(message) as Record<string, unknown> | undefined),
      }));
    }
    if (field.fieldKind === 'enum') {
      return [{ column, select: `CAST(${column}, 'Int32')`, value: (message) => own(message) ?? 0 }];
    }
    if (field.fieldKind !== 'scalar') throw new Error(`${column}: this test does not know ${field.fieldKind} fields`);
    if (field.scalar === ScalarType.STRING) return [{ column, select: column, value: (message) => own(message) ?? '' }];
    return [{ column, select: `toString(${column})`, value: (message) => String(own(message) ?? 0) }];
  });
}

/** One text per row, whatever the order of a map's entries. -0 and 0 differ, as they do for Map(String, Float64). */
const textOf = (values: readonly unknown[]): string =>
  JSON.stringify(values, (_, value: unknown) => {
    if (Object.is(value, -0)) return '-0';
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  });

const compared = columns(EventSchema);
const target = eventsTable('sluice');

/** One block. */
const constantsOf = (block: number): BlockConstants => ({
  day: '2026-03-01',
  stream: 'g',
  shard: 0,
  block: BigInt(block),
  lo: BigInt(block),
  hi: BigInt(block),
  accepted: 0,
  duplicate: 0,
  dead: 0,
});

/** The rows of a block as texts, by batch. */
async function storedTexts(clickhouse: ClickHouse, block: number): Promise<Map<string, string[]>> {
  const select = compared.map(({ select: text }, i) => `${text} AS c${i}`).join(', ');
  const rows = await clickhouse.rows<Record<string, unknown>>(
    `SELECT batch_id, ${select} FROM sluice.events WHERE _block = {block:UInt64}`,
    { block },
  );
  const stored = new Map<string, string[]>();
  for (const row of rows) {
    const of = stored.get(String(row.batch_id)) ?? [];
    of.push(textOf(compared.map((_, i) => row[`c${i}`])));
    stored.set(String(row.batch_id), of);
  }
  return stored;
}

/** @returns events in the batch. @throws Error when the rows have other values than the decoder sees */
function compareBatch(bytes: Uint8Array, stored: readonly string[], which: string): number {
  const decoded = fromBinary(EventBatchSchema, bytes).events;
  const expected = decoded
    .map((event) => textOf(compared.map(({ value }) => value(event as unknown as Record<string, unknown>))))
    .sort();
  const found = [...stored].sort();
  if (expected.length !== found.length || expected.some((text, at) => text !== found[at])) {
    const at = expected.findIndex((text, n) => text !== found[n]);
    const hex = Buffer.from(bytes).toString('hex').slice(0, 4_000);
    assert.unreachable(`${which}, ${bytes.length} bytes: ${hex}\ndecoded: ${expected[at]}\nstored:  ${found[at]}`);
  }
  return decoded.length;
}

/** Stores odd batches in the real engine, and compares all columns. @throws Error at the first batch that differs */
export async function assertEngineAgrees({ from, small, large }: AgreementBlocks): Promise<void> {
  await withClickHouse(async ({ url }) => {
    const clickhouse = createClickHouse(
      resolveOptions(clickhouseClientOptions, { clickhouseUrl: url }, {}),
      silentLogger,
    );
    try {
      await prepareTable(clickhouse, target);
      const random = createRandom(seed);
      let [events, pruned] = [0, 0];
      for (let block = from; block < from + small + large; block++) {
        const corpus = acceptedCorpus(seed + block, block < from + small ? 1 + (block % 4) : batchesPerBlock);
        const constants = constantsOf(block);
        const body = corpus.map((bytes, i) =>
          storedPayload(random, { tenant: 'acme', batchId: String(i), events: 1, bytes }),
        );
        const statement = insertStatement(target, constants, body);
        if (!statement.query.includes('device_user_agent')) pruned++;
        await clickhouse.insertBlock(statement, blockName(constants), body);
        const stored = await storedTexts(clickhouse, block);
        for (const [i, bytes] of corpus.entries()) {
          events += compareBatch(bytes, stored.get(String(i)) ?? [], `batch ${i} of seed ${seed + block}`);
        }
      }
      assert.ok(events >= large * batchesPerBlock);
      assert.ok(pruned >= small / 10, `only ${pruned} blocks lacked a column`);
    } finally {
      await clickhouse.close();
    }
  });
}
