/**
 * What the contract may come to hold: every kind of field becomes a column and reads back; and a block is one part whatever
 * its batches look like.
 */
import { create, createFileRegistry, type DescMessage, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import {
  type FieldDescriptorProto,
  FieldDescriptorProtoSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  file_google_protobuf_timestamp,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from '@bufbuild/protobuf/wkt';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { clickhouseClientOptions, resolveOptions } from '../../../lib/config/index.js';
import { rulesOf } from '../../../lib/contract/rules.js';
import { silentLogger } from '../../../lib/logger.js';
import { createRandom } from '../../../lib/testing/batches.js';
import { withClickHouse } from '../../../lib/testing/clickhouse.js';
import { storedPayload } from '../../testing/payloads.js';
import { type ClickHouse, createClickHouse } from '../client.js';
import { eventsTable } from '../connect.js';
import { prepareTable } from '../prepare-table.js';
import { type BlockConstants, blockName, insertStatement, schemaOf } from './index.js';

const target = eventsTable('sluice');

const block = (n: number): BlockConstants => ({
  day: '2026-03-01',
  stream: '1700000000000000000',
  shard: 0,
  block: BigInt(n),
  lo: BigInt(n),
  hi: BigInt(n),
  accepted: 0,
  duplicate: 0,
  dead: 0,
});

async function withClickHouseClient(use: (clickhouse: ClickHouse) => Promise<void>): Promise<void> {
  await withClickHouse(async ({ url }) => {
    const clickhouse = createClickHouse(
      resolveOptions(clickhouseClientOptions, { clickhouseUrl: url }, {}),
      silentLogger,
    );
    try {
      await use(clickhouse);
    } finally {
      await clickhouse.close();
    }
  });
}

const scalars = {
  a_bool: [Type.BOOL, true],
  a_bytes: [Type.BYTES, new Uint8Array([104, 105])],
  a_int32: [Type.INT32, -7],
  a_sint32: [Type.SINT32, -2147483648],
  a_sfixed32: [Type.SFIXED32, -9],
  a_uint32: [Type.UINT32, 4294967295],
  a_fixed32: [Type.FIXED32, 5],
  a_int64: [Type.INT64, -(2n ** 63n)],
  a_sint64: [Type.SINT64, -3n],
  a_sfixed64: [Type.SFIXED64, -4n],
  a_uint64: [Type.UINT64, 2n ** 64n - 1n],
  a_fixed64: [Type.FIXED64, 6n],
  a_float: [Type.FLOAT, 0.5],
  a_double: [Type.DOUBLE, 1e-300],
} as const;

/** An Event with a field of every kind. */
function everyKind(): DescMessage {
  let number = 3;
  const field = (
    name: string,
    type: Type,
    more: Omit<MessageInitShape<typeof FieldDescriptorProtoSchema>, '$typeName'> = {},
  ): FieldDescriptorProto =>
    create(FieldDescriptorProtoSchema, {
      name,
      jsonName: name,
      number: number++,
      type,
      label: Label.OPTIONAL,
      ...more,
    });
  const map = (name: string, value: FieldDescriptorProto) => {
    const entry = `${name.replace(/(?:^|_)([a-z])/g, (_, c: string) => c.toUpperCase())}Entry`;
    return {
      field: field(name, Type.MESSAGE, { typeName: `.t.Event.${entry}`, label: Label.REPEATED }),
      nested: {
        name: entry,
        options: { mapEntry: true },
        field: [field('key', Type.STRING, { number: 1 }), { ...value, number: 2 }],
      },
    };
  };
  const color = { typeName: '.t.Color' };
  const colors = map('colors', field('value', Type.ENUM, color));
  const counts = map('counts', field('value', Type.SINT64));
  const file = create(FileDescriptorProtoSchema, {
    name: 't.proto',
    package: 't',
    syntax: 'proto3',
    dependency: ['google/protobuf/timestamp.proto'],
    enumType: [
      {
        name: 'Color',
        value: [
          { name: 'COLOR_NONE', number: 0 },
          { name: 'COLOR_RED', number: 1 },
          { name: 'COLOR_FAR', number: 1000 },
        ],
      },
    ],
    messageType: [
      { name: 'Item', field: [field('sku', Type.STRING, { number: 1 }), field('n', Type.UINT32, { number: 2 })] },
      {
        name: 'Event',
        oneofDecl: [{ name: '_maybe' }, { name: '_hue' }],
        nestedType: [colors.nested, counts.nested],
        field: [
          field('type', Type.ENUM, { ...color, number: 1 }),
          field('occurred_at', Type.MESSAGE, { typeName: '.google.protobuf.Timestamp', number: 2 }),
          ...Object.entries(scalars).map(([name, [type]]) => field(name, type)),
          field('maybe', Type.SINT32, { proto3Optional: true, oneofIndex: 0 }),
          field('hue', Type.ENUM, { ...color, proto3Optional: true, oneofIndex: 1 }),
          field('words', Type.STRING, { label: Label.REPEATED }),
          field('palette', Type.ENUM, { ...color, label: Label.REPEATED }),
          field('items', Type.MESSAGE, { typeName: '.t.Item', label: Label.REPEATED }),
          field('item', Type.MESSAGE, { typeName: '.t.Item' }),
          colors.field,
          counts.field,
        ],
      },
      {
        name: 'EventBatch',
        field: [field('events', Type.MESSAGE, { typeName: '.t.Event', number: 1, label: Label.REPEATED })],
      },
    ],
  });
  const registry = createFileRegistry(
    create(FileDescriptorSetSchema, { file: [file_google_protobuf_timestamp.proto, file] }),
  );
  return registry.getMessage('t.EventBatch') as DescMessage;
}

/** a_bool → aBool, as messages name it in JavaScript. */
const localName = (name: string): string => name.replace(/_([a-z])/g, (_, c: string) => c.toUpperCase());

test('every kind of field becomes a column, and its values read back', async () => {
  await withClickHouseClient(async (clickhouse) => {
    const batch = everyKind();
    const event = batch.field.events?.message as DescMessage;
    const schema = schemaOf(StoredBatchSchema, rulesOf(event));
    for (const statement of schema.createStatements(target)) await clickhouse.command(statement);
    const columns = await clickhouse.rows<{ name: string; type: string }>(
      "SELECT name, type FROM system.columns WHERE database = 'sluice' AND table = 'events'",
    );
    assert.equal(
      schema.migrations(target, columns),
      { statements: [], misfits: [] },
      'types are written as the engine writes them',
    );
    const full = {
      type: 1,
      occurredAt: { seconds: 7n, nanos: 8 },
      ...Object.fromEntries(Object.entries(scalars).map(([name, [, value]]) => [localName(name), value])),
      maybe: 0,
      hue: 0,
      words: ['b', '', 'a'],
      palette: [1000, 0, 1],
      items: [
        { sku: 'x', n: 1 },
        { sku: '', n: 2 },
      ],
      item: { sku: 'y' },
      colors: { k: 1000 },
      counts: { k: -5n, l: 0n },
    };
    const bytes = toBinary(batch, create(batch, { events: [full, { type: 1000 }] } as never));
    const payload = storedPayload(createRandom(1), { tenant: 'acme', batchId: 'b', events: 2, bytes });
    await clickhouse.insertBlock(schema.insertStatement(target, block(1), [payload]), blockName(block(1)), [payload]);
    const names = Object.keys(scalars).map((name) => `toString(${name}) AS ${name}`);
    const rows = await clickhouse.rows<Record<string, unknown>>(
      `SELECT type, toString(toUnixTimestamp64Nano(occurred_at)) AS at, maybe, hue, words, palette, items, item_sku, item_n, colors, ` +
        `mapApply((k, v) -> (k, toString(v)), counts) AS counts, ${names.join(', ')} FROM sluice.events ORDER BY type`,
    );
    const texts = (value: (v: unknown) => string) =>
      Object.fromEntries(Object.entries(scalars).map(([name, [, v]]) => [name, value(v)]));
    assert.equal(rows, [
      {
        type: 'red',
        at: '7000000008',
        maybe: 0,
        hue: 'none',
        words: ['b', '', 'a'],
        palette: ['far', 'none', 'red'],
        items: [
          { sku: 'x', n: 1 },
          { sku: '', n: 2 },
        ],
        item_sku: 'y',
        item_n: 0,
        colors: { k: 'far' },
        counts: { k: '-5', l: '0' },
        ...texts((v) => (v instanceof Uint8Array ? 'hi' : String(v))),
      },
      {
        type: 'far',
        at: '0',
        maybe: null,
        hue: null,
        words: [],
        palette: [],
        items: [],
        item_sku: '',
        item_n: 0,
        colors: {},
        counts: {},
        ...texts((v) => (v instanceof Uint8Array ? '' : typeof v === 'boolean' ? 'false' : '0')),
      },
    ]);
  });
});

test('LOAD-1: one batch of 10,000 events, 60,000 batches of one, a mixture: each block is one part', async () => {
  await withClickHouseClient(async (clickhouse) => {
    await prepareTable(clickhouse, target);
    await clickhouse.command('SYSTEM STOP MERGES sluice.events');
    const random = createRandom(5);
    const payload = (events: number, batchId: string) => storedPayload(random, { tenant: 'acme', batchId, events });
    const tiny = Array.from({ length: 100 }, (_, i) => payload(1, `t${i}`));
    const large = payload(10_000, 'large');
    const bodies = [
      [large],
      Array.from({ length: 60_000 }, (_, i) => tiny[i % 100] as Uint8Array),
      [...tiny, large, ...tiny],
    ];
    for (const [i, body] of bodies.entries()) {
      await clickhouse.insertBlock(insertStatement(target, block(i + 1), body), blockName(block(i + 1)), body);
    }
    const parts = await clickhouse.rows<{ size: string }>(
      "SELECT toString(rows) AS size FROM system.parts WHERE database = 'sluice' AND table = 'events' AND active ORDER BY min_block_number",
    );
    assert.equal(
      parts.map(({ size }) => size),
      ['10000', '60000', '10200'],
    );
  });
});

test("a client's clock that is out of range counts as not told", async () => {
  await withClickHouseClient(async (clickhouse) => {
    await prepareTable(clickhouse, target);
    const payloads = [1_700_000_000n, 253_402_300_799n, -5n].map((seconds, i) => {
      const bytes = toBinary(
        StoredBatchSchema,
        create(StoredBatchSchema, {
          tenant: 'acme',
          batchId: `b${i}`,
          sentAt: { seconds },
          events: [{ eventId: 'e', type: 1 }],
        }),
      );
      return Buffer.concat([Buffer.from([bytes.length]), bytes]);
    });
    await clickhouse.insertBlock(insertStatement(target, block(1), payloads), blockName(block(1)), payloads);
    const rows = await clickhouse.rows<{ at: string }>(
      'SELECT toString(toUnixTimestamp64Nano(sent_at)) AS at FROM sluice.events ORDER BY batch_id',
    );
    assert.equal(
      rows.map(({ at }) => at),
      ['1700000000000000000', '0', '0'],
    );
  });
});

test('a deletion changes what the ledger of blocks counts, and the ledger is what answers', async () => {
  await withClickHouseClient(async (clickhouse) => {
    await prepareTable(clickhouse, target);
    const random = createRandom(6);
    for (const n of [1, 2]) {
      const body = [storedPayload(random, { tenant: `t${n}`, batchId: 'b', events: 100 })];
      await clickhouse.insertBlock(insertStatement(target, block(n), body), blockName(block(n)), body);
    }
    // A block that no part can hold is answered without any of them, and so without the ledger.
    const count = async (n: number, forced = 1) =>
      (
        await clickhouse.rows<{ n: string }>(
          `SELECT toString(count()) AS n FROM sluice.events WHERE _day = '2026-03-01' AND _stream = '1700000000000000000' ` +
            `AND _shard = 0 AND _block = ${n} SETTINGS force_optimize_projection = ${forced}`,
        )
      )[0]?.n;
    assert.equal([await count(1), await count(2), await count(3, 0)], ['100', '100', '0']);
    await clickhouse.command("DELETE FROM sluice.events WHERE type IN ('click', 'impression')");
    const [left] = await clickhouse.rows<{ n: string }>(
      'SELECT toString(count()) AS n FROM sluice.events WHERE _block = 1 SETTINGS optimize_use_projections = 0',
    );
    assert.ok(Number(left?.n) < 100);
    assert.is(await count(1), left?.n);
    await clickhouse.command("ALTER TABLE sluice.events DELETE WHERE tenant = 't1'", {
      settings: { mutations_sync: 2 },
    });
    assert.is.not(await count(2), '0');
    const blocks = await clickhouse.rows<{ n: string }>(
      'SELECT toString(_block) AS n FROM sluice.events GROUP BY _block',
    );
    assert.equal(blocks, [{ n: '2' }]);
  });
});

test.run();
