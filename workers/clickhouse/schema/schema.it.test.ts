import { create, createFileRegistry, type DescMessage, fromBinary, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import {
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  file_google_protobuf_descriptor,
  file_google_protobuf_timestamp,
} from '@bufbuild/protobuf/wkt';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type Event,
  EventBatchSchema,
  type EventType,
  file_sluice_event_v1_event,
} from '#gen/sluice/event/v1/event_pb.js';
import { file_sluice_log_v1_log, StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { file_sluice_rules_v1_rules } from '#gen/sluice/rules/v1/rules_pb.js';
import { clickhouseClientOptions, resolveOptions } from '../../../lib/config/index.js';
import { rulesOf } from '../../../lib/contract/rules.js';
import { silentLogger } from '../../../lib/logger.js';
import { createRandom, encodeBatch } from '../../../lib/testing/batches.js';
import { withClickHouse } from '../../../lib/testing/clickhouse.js';
import { makeRichEvent } from '../../../lib/testing/rich-events.js';
import { sortByTenant } from '../../loader/sort-by-tenant.js';
import { withEventsTable } from '../../testing/events-table.js';
import { storedPayload } from '../../testing/payloads.js';
import { type ClickHouse, createClickHouse, StatementError } from '../client.js';
import { eventsTable } from '../connect.js';
import { prepareTable } from '../prepare-table.js';
import {
  type BlockConstants,
  blockName,
  createStatements,
  insertStatement,
  schemaOf,
  settingStatements,
} from './index.js';

const target = eventsTable('sluice');
const random = createRandom(11);

const block = (n: number, lo: number, hi: number): BlockConstants => ({
  day: '2026-03-01',
  stream: '1700000000000000000',
  shard: 3,
  block: BigInt(n),
  lo: BigInt(lo),
  hi: BigInt(hi),
  accepted: 0,
  duplicate: 0,
  dead: 0,
});

const withTable = (use: (clickhouse: ClickHouse) => Promise<void>): Promise<void> => withEventsTable(target, use);

const insert = (clickhouse: ClickHouse, c: BlockConstants, body: readonly Uint8Array[], queryId = blockName(c)) =>
  clickhouse.insertBlock(insertStatement(target, c, body), queryId, body);

const nanosOf = (t: { seconds: bigint; nanos: number } | undefined): string =>
  String((t?.seconds ?? 0n) * 1_000_000_000n + BigInt(t?.nanos ?? 0));

const deviceOf = (device: Event['device']): unknown[] => [
  device?.id ?? '',
  device?.platform ?? 0,
  device?.osVersion ?? '',
  device?.manufacturer ?? '',
  device?.model ?? '',
  device?.locale ?? '',
  device?.country ?? '',
  device?.utcOffsetMinutes ?? 0,
  device?.advertisingId ?? '',
  device?.userAgent ?? '',
];

const touchOf = (touch: Event['touch']): unknown[] => [
  touch?.channel ?? '',
  touch?.source ?? '',
  touch?.medium ?? '',
  touch?.campaign ?? '',
  touch?.adGroup ?? '',
  touch?.creative ?? '',
  touch?.keyword ?? '',
  touch?.clickId ?? '',
  String(touch?.costMicros ?? 0),
];

const pageOf = (page: Event['page']): unknown[] => [
  page?.url ?? '',
  page?.path ?? '',
  page?.title ?? '',
  page?.referrer ?? '',
  page?.status ?? 0,
];

const appOf = (app: Event['app']): unknown[] => [app?.id ?? '', app?.version ?? '', app?.build ?? '', app?.sdk ?? ''];

/** An event as it was sent, in the order of {@link storedColumns}. */
const sentColumns = (event: Event): unknown => ({
  at: nanosOf(event.occurredAt),
  type: event.type,
  name: event.name,
  user: event.userId,
  anonymous: event.anonymousId,
  session: event.sessionId,
  value: String(event.valueMicros),
  currency: event.currency,
  properties: event.properties,
  metrics: event.metrics,
  device: deviceOf(event.device),
  touch: touchOf(event.touch),
  page: pageOf(event.page),
  app: appOf(event.app),
  batch: ['b-1', 1, 'test/1', '2026-03-01', '1700000000000000000', 3, '2'],
});

const storedColumns = (row: Record<string, unknown>): unknown => ({
  at: row.at,
  type: row.type_number,
  name: row.name,
  user: row.user_id,
  anonymous: row.anonymous_id,
  session: row.session_id,
  value: row.value,
  currency: row.currency,
  properties: row.properties,
  metrics: row.metrics,
  device: [
    row.device_id,
    row.platform_number,
    row.device_os_version,
    row.device_manufacturer,
    row.device_model,
    row.device_locale,
    row.device_country,
    row.device_utc_offset_minutes,
    row.device_advertising_id,
    row.device_user_agent,
  ],
  touch: [
    row.touch_channel,
    row.touch_source,
    row.touch_medium,
    row.touch_campaign,
    row.touch_ad_group,
    row.touch_creative,
    row.touch_keyword,
    row.touch_click_id,
    row.cost,
  ],
  page: [row.page_url, row.page_path, row.page_title, row.page_referrer, row.page_status],
  app: [row.app_id, row.app_version, row.app_build, row.app_sdk],
  batch: [row.batch_id, row._attempt, row.client, row._day, row._stream, row._shard, row.hi],
});

test('every column of every event reads back as it was sent', async () => {
  await withTable(async (clickhouse) => {
    const events = Array.from({ length: 400 }, () => makeRichEvent(random));
    events.forEach((event, i) => {
      event.eventId = `e${i}`;
    });
    const bytes = encodeBatch(create(EventBatchSchema, { events }));
    const sent = fromBinary(EventBatchSchema, bytes).events;
    await insert(clickhouse, block(1, 1, 2), [
      storedPayload(random, { tenant: 'acme', batchId: 'b-1', events: 400, bytes }),
      storedPayload(random, { tenant: 'other', batchId: 'b-2', events: 7 }),
    ]);
    const rows = await clickhouse.rows<Record<string, unknown>>(
      "SELECT * EXCEPT (occurred_at), toString(toUnixTimestamp64Nano(occurred_at)) AS at, CAST(type, 'Int32') AS type_number, " +
        "CAST(device_platform, 'Int32') AS platform_number, toString(value_micros) AS value, toString(touch_cost_micros) AS cost, " +
        "toString(_hi) AS hi FROM sluice.events WHERE tenant = 'acme'",
    );
    assert.is(rows.length, 400);
    const byId = new Map(rows.map((row) => [row.event_id, row]));
    for (const event of sent) {
      const row = byId.get(event.eventId) as Record<string, unknown>;
      assert.equal(storedColumns(row), sentColumns(event));
    }
  });
});

test('LOAD-1, LOAD-2: a block is one part, and inserting it again, or at the same time, stores nothing more', async () => {
  await withTable(async (clickhouse) => {
    const body = Array.from({ length: 400 }, (_, i) =>
      storedPayload(random, { tenant: 'acme', batchId: `b${i}`, events: 500 }),
    );
    await insert(clickhouse, block(1, 1, 400), body);
    const parts = () =>
      clickhouse.rows<{ name: string; rows: string }>(
        "SELECT name, toString(rows) AS rows FROM system.parts WHERE database = 'sluice' AND table = 'events' AND active",
      );
    assert.equal(
      (await parts()).map((part) => part.rows),
      ['200000'],
    );
    await insert(clickhouse, block(1, 1, 400), body);
    assert.is((await parts()).length, 1);
    const twice = await Promise.allSettled([
      insert(clickhouse, block(2, 401, 800), body),
      insert(clickhouse, block(2, 401, 800), body),
    ]);
    const [row] = await clickhouse.rows<{ n: string }>('SELECT toString(count()) AS n FROM sluice.events');
    assert.is(row?.n, '400000');
    const refused = twice
      .filter((r) => r.status === 'rejected')
      .map((r) => (r as PromiseRejectedResult).reason as StatementError);
    assert.ok(refused.length <= 1);
    for (const error of refused) assert.is(error.kind, 'busy');
    // What makes the protocol cheap: the ledger answers, not the rows.
    const plan = await clickhouse.rows<{ explain: string }>(
      "EXPLAIN SELECT count() FROM sluice.events WHERE _day = '2026-03-01' AND _stream = '1700000000000000000' AND _shard = 3 AND _block = 2",
    );
    assert.match(plan.map((line) => line.explain).join('\n'), /blocks/);
  });
});

test('a block that comes by tenant is stored as it is, and the look-up of a block opens no part that cannot hold it', async () => {
  await withTable(async (clickhouse) => {
    const tenants = ['globex', 'acme', 'initech', 'acme', 'globex'];
    const body = tenants.map((tenant, i) => storedPayload(random, { tenant, batchId: `b${i}`, events: 20 }));
    const sortedBlocks = async () => {
      const [row] = await clickhouse.rows<{ n: string }>(
        "SELECT toString(sum(value)) AS n FROM system.events WHERE event = 'MergeTreeDataWriterBlocksAlreadySorted'",
      );
      return Number(row?.n);
    };
    const before = await sortedBlocks();
    await insert(clickhouse, block(1, 1, 5), body);
    const between = await sortedBlocks();
    await insert(clickhouse, block(2, 6, 10), sortByTenant(body));
    assert.is(
      (await sortedBlocks()) - between,
      between - before + 1,
      'one that was sorted more than in the block before',
    );
    const [row] = await clickhouse.rows<{ tenants: string; n: string }>(
      'SELECT toString(uniqExact(tenant)) AS tenants, toString(count()) AS n FROM sluice.events',
    );
    assert.equal(row, { tenants: '3', n: '200' });
    const lookUp = async (n: number) => {
      const plan = await clickhouse.rows<{ explain: string }>(
        `EXPLAIN indexes = 1 SELECT count() FROM sluice.events WHERE _day = '2026-03-01' AND _stream = '${block(n, 0, 0).stream}' ` +
          `AND _shard = 3 AND _block = ${n}`,
      );
      return plan.map(({ explain }) => explain.trim());
    };
    assert.ok((await lookUp(3)).includes('Parts: 0/2'), (await lookUp(3)).join('\n'));
    assert.ok((await lookUp(2)).includes('Parts: 1/1'), (await lookUp(2)).join('\n'));
  });
});

test('a table that an older version made is loaded as it is: sort key, partition key and what its operator set stay', async () => {
  await withClickHouse(async ({ url }) => {
    const clickhouse = createClickHouse(
      resolveOptions(clickhouseClientOptions, { clickhouseUrl: url }, {}),
      silentLogger,
    );
    try {
      const [database, table] = createStatements(target) as [string, string];
      const older = table
        .replace(/PARTITION BY .*\n/, 'PARTITION BY _day\n')
        .replace('ORDER BY (tenant, _shard, _block)', 'ORDER BY (tenant, type, _shard, _block, occurred_at)')
        .replace(/SETTINGS .*$/s, 'SETTINGS non_replicated_deduplication_window = 0, min_parts_to_merge_at_once = 7')
        .replace(/ CODEC\(ZSTD\(1\)\)/g, '');
      assert.is.not(older, table);
      await clickhouse.command(database);
      await clickhouse.command(older);
      await prepareTable(clickhouse, target);
      const body = ['b', 'a', 'b'].map((tenant) => storedPayload(random, { tenant, batchId: tenant, events: 30 }));
      for (let i = 0; i < 2; i++) await insert(clickhouse, block(1, 1, 3), sortByTenant(body));
      const parts = await clickhouse.rows<{ rows: string }>(
        "SELECT toString(rows) AS rows FROM system.parts WHERE database = 'sluice' AND table = 'events' AND active",
      );
      assert.equal(parts, [{ rows: '90' }]);
      const [made] = await clickhouse.rows<{ sorting_key: string; engine_full: string }>(
        "SELECT sorting_key, engine_full FROM system.tables WHERE database = 'sluice' AND name = 'events'",
      );
      assert.is(made?.sorting_key, 'tenant, type, _shard, _block, occurred_at');
      assert.match(made?.engine_full ?? '', /min_parts_to_merge_at_once = 7\b/);
      // What only saves work is given to it, once, and only what the server knows.
      assert.match(made?.engine_full ?? '', /min_bytes_for_wide_part = 268435456.*auto_statistics_types = ''/);
      const names = new Set(['min_bytes_for_wide_part', 'min_parts_to_merge_at_once']);
      assert.equal(settingStatements(target, names, made?.engine_full ?? ''), []);
      assert.equal(settingStatements(target, names, 'MergeTree SETTINGS min_parts_to_merge_at_once = 7'), [
        'ALTER TABLE `sluice`.`events` MODIFY SETTING min_bytes_for_wide_part = 268435456',
      ]);
    } finally {
      await clickhouse.close();
    }
  });
});

test('data that is not Protobuf of the contract is refused whole, as content', async () => {
  await withTable(async (clickhouse) => {
    const good = storedPayload(random, { tenant: 'acme', batchId: 'b', events: 5 });
    const error = await insert(clickhouse, block(1, 1, 2), [good, good.subarray(0, good.length - 3)]).catch((e) => e);
    assert.instance(error, StatementError);
    assert.is((error as StatementError).kind, 'content');
    const [row] = await clickhouse.rows<{ n: string }>('SELECT toString(count()) AS n FROM sluice.events');
    assert.is(row?.n, '0');
  });
});

// No contributor chooses these numbers and the names below, so this test stays as it is when the contract grows.
const nextYearsField = 1000;
const nextYearsType = 100;

/** The contract as it may look next year: a field and an enum value more. */
function nextYear(): { storedBatch: DescMessage; event: ReturnType<typeof rulesOf> } {
  const copy = (file: { proto: FileDescriptorProto }): FileDescriptorProto =>
    fromBinary(FileDescriptorProtoSchema, toBinary(FileDescriptorProtoSchema, file.proto));
  const event = copy(file_sluice_event_v1_event);
  const message = event.messageType.find((m) => m.name === 'Event');
  const currency = message?.field.find((f) => f.name === 'currency');
  message?.field.push({
    ...structuredClone({ ...currency, options: undefined }),
    $typeName: 'google.protobuf.FieldDescriptorProto',
    name: 'field_of_next_year',
    jsonName: 'fieldOfNextYear',
    number: nextYearsField,
  } as never);
  const values = event.enumType.find((e) => e.name === 'EventType')?.value;
  values?.push({
    ...structuredClone({ ...values[0], options: undefined }),
    $typeName: 'google.protobuf.EnumValueDescriptorProto',
    name: 'EVENT_TYPE_OF_NEXT_YEAR',
    number: nextYearsType,
  } as never);
  const registry = createFileRegistry(
    create(FileDescriptorSetSchema, {
      file: [file_google_protobuf_descriptor, file_google_protobuf_timestamp, file_sluice_rules_v1_rules]
        .map(copy)
        .concat(event, copy(file_sluice_log_v1_log)),
    }),
  );
  return {
    storedBatch: registry.getMessage('sluice.log.v1.StoredBatch') as DescMessage,
    event: rulesOf(registry.getMessage('sluice.event.v1.Event') as DescMessage),
  };
}

test('a field and an enum value added to the .proto become a column and a label; old rows stay', async () => {
  await withTable(async (clickhouse) => {
    await insert(clickhouse, block(1, 1, 1), [storedPayload(random, { tenant: 'acme', batchId: 'old', events: 3 })]);
    const next = nextYear();
    const schema = schemaOf(next.storedBatch, next.event);
    const columns = await clickhouse.rows<{ name: string; type: string }>(
      "SELECT name, type FROM system.columns WHERE database = 'sluice' AND table = 'events'",
    );
    const { statements: changes, misfits } = schema.migrations(target, columns);
    assert.equal(misfits, []);
    assert.is(changes.length, 2, changes.join('\n'));
    for (const change of changes) await clickhouse.command(change);
    const c = block(2, 2, 2);
    const newEvent = Buffer.concat([
      toBinary(
        EventBatchSchema,
        create(EventBatchSchema, {
          events: [{ eventId: 'n', type: nextYearsType as EventType, occurredAt: { seconds: 1n, nanos: 0 } }],
        }),
      ).subarray(2),
      new BinaryWriter().tag(nextYearsField, 2).string('50').finish(),
    ]);
    const bytes = Buffer.concat([Buffer.from([0x0a, newEvent.length]), newEvent]);
    const body = [storedPayload(random, { tenant: 'acme', batchId: 'new', events: 1, bytes })];
    await clickhouse.insertBlock(schema.insertStatement(target, c, body), blockName(c), body);
    const rows = await clickhouse.rows<{ type: string; field_of_next_year: string; n: string }>(
      "SELECT batch_id, if(batch_id = 'new', toString(type), '') AS type, field_of_next_year, toString(count()) AS n FROM sluice.events GROUP BY ALL ORDER BY n",
    );
    assert.equal(
      rows.map((row) => [row.type, row.field_of_next_year, row.n]),
      [
        ['of_next_year', '50', '1'],
        ['', '', '3'],
      ],
    );
    const after = await clickhouse.rows<{ name: string; type: string }>(
      "SELECT name, type FROM system.columns WHERE database = 'sluice' AND table = 'events'",
    );
    assert.equal(schema.migrations(target, after), { statements: [], misfits: [] });
    // A worker of the contract before, started later: it narrows nothing, loads, and everything can be read.
    await prepareTable(clickhouse, target);
    assert.equal(
      await clickhouse.rows("SELECT name, type FROM system.columns WHERE database = 'sluice' AND table = 'events'"),
      after,
    );
    await insert(clickhouse, block(3, 3, 3), [storedPayload(random, { tenant: 'acme', batchId: 'older', events: 4 })]);
    const [all] = await clickhouse.rows<{ n: string }>(
      "SELECT toString(countIf(toString(type) != '')) AS n FROM sluice.events",
    );
    assert.is(all?.n, '8');
  });
});

test('the table of today needs no migration', async () => {
  await withTable(async (clickhouse) => {
    const columns = await clickhouse.rows<{ name: string; type: string }>(
      "SELECT name, type FROM system.columns WHERE database = 'sluice' AND table = 'events'",
    );
    const { migrations } = await import('./index.js');
    assert.equal(migrations(target, columns), { statements: [], misfits: [] });
    assert.is(toBinary(StoredBatchSchema, create(StoredBatchSchema)).length, 0);
  });
});

test('workers that prepare the table at the same time do no harm: on an empty server, and on an older table', async () => {
  await withClickHouse(async ({ url }) => {
    const config = resolveOptions(clickhouseClientOptions, { clickhouseUrl: url }, {});
    const workers = [0, 1, 2].map(() => createClickHouse(config, silentLogger));
    const first = workers[0] as ClickHouse;
    const described = () =>
      first.rows<{ name: string; type: string }>(
        "SELECT name, type FROM system.columns WHERE database = 'sluice' AND table = 'events' ORDER BY name",
      );
    try {
      await Promise.all(workers.map((worker) => prepareTable(worker, target)));
      const today = await described();
      await insert(first, block(1, 1, 1), [storedPayload(random, { tenant: 'acme', batchId: 'old', events: 50 })]);
      // What an older contract had not: a column, and a label of an enum (kept: those that the rows use).
      await first.command('ALTER TABLE sluice.events DROP COLUMN device_model');
      const platforms = "'unspecified' = 0, 'ios' = 1, 'android' = 2, 'web' = 3";
      await first.command(`ALTER TABLE sluice.events MODIFY COLUMN device_platform Enum8(${platforms})`);
      assert.not.equal(await described(), today);
      await Promise.all(workers.map((worker) => prepareTable(worker, target)));
      assert.equal(await described(), today);
      const [row] = await first.rows<{ n: string }>('SELECT toString(count()) AS n FROM sluice.events');
      assert.is(row?.n, '50');
    } finally {
      await Promise.all(workers.map((worker) => worker.close()));
    }
  });
});

test.run();
