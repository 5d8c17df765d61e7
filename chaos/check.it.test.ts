/**
 * The check can fail: each kind of finding, made on purpose in a table of the real engine. That the events' values agree in JavaScript
 * and SQL is seen here too.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ClickHouseClient, createClient } from '@clickhouse/client';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withClickHouse } from '../lib/testing/clickhouse.js';
import { checkHistory, type Findings } from './check.js';
import { makeEvent } from './events.js';
import { openJournal } from './journal.js';

type Row = Record<string, unknown>;

const labels = ['install', 'session', 'click', 'impression', 'conversion', 'page', 'custom'];

const create = `CREATE TABLE default.events (tenant String, event_id String,
  type Enum8('unspecified' = 0, ${labels.map((label, i) => `'${label}' = ${i + 1}`).join(', ')}), occurred_at DateTime64(9, 'UTC'),
  name String, user_id String, anonymous_id String, session_id String, device_id String, device_platform Enum8('unspecified' = 0, 'ios' = 1),
  device_model String, device_utc_offset_minutes Int32, touch_campaign String, touch_cost_micros Int64, touch_click_id String,
  value_micros Int64, currency String, properties Map(String, String), metrics Map(String, Float64), page_path String, page_status UInt32,
  page_url String, app_id String, batch_id String, received_at DateTime64(9, 'UTC'), _attempt UInt32, _day Date, _stream String,
  _shard UInt32, _block UInt64, _lo UInt64, _hi UInt64, _accepted UInt32) ENGINE = MergeTree ORDER BY (_shard, _block)`;

interface Place {
  readonly block: number;
  readonly lo: number;
  readonly hi: number;
  readonly accepted: number;
}

function rowOf(source: number, n: number, place: Place): Row {
  const event = makeEvent(source, n);
  const time = event.occurredAt as { seconds: bigint; nanos: number };
  return {
    tenant: 'chaos',
    event_id: event.eventId,
    type: labels[(event.type as number) - 1],
    occurred_at: `${time.seconds}.${String(time.nanos).padStart(9, '0')}`,
    name: event.name,
    user_id: event.userId,
    session_id: event.sessionId,
    device_id: event.device?.id ?? '',
    device_platform: event.device === undefined ? 'unspecified' : 'ios',
    device_utc_offset_minutes: event.device?.utcOffsetMinutes ?? 0,
    touch_campaign: event.touch?.campaign ?? '',
    touch_cost_micros: String(event.touch?.costMicros ?? 0),
    value_micros: String(event.valueMicros ?? 0),
    currency: event.currency ?? '',
    properties: event.properties ?? {},
    metrics: event.metrics ?? {},
    page_path: event.page?.path ?? '',
    page_status: event.page?.status ?? 0,
    batch_id: 'b',
    _stream: 'g',
    _block: place.block,
    _lo: place.lo,
    _hi: place.hi,
    _accepted: place.accepted,
  };
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

/**
 * Source 1 sent events 0 to 599 in three batches: 0 to 299 accepted, 300 to 399 unknown, 400 to 599 accepted. All are stored, in two
 * blocks, as `change` leaves them.
 */
async function find(client: ClickHouseClient, change: (rows: Row[]) => Row[]): Promise<Findings> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-check-'));
  try {
    const file = join(folder, 'journal-1');
    const journal = openJournal(file);
    journal.sent({ batchId: 'a', first: 0, count: 300, attempt: 1 });
    journal.sent({ batchId: 'b', first: 300, count: 100, attempt: 1 });
    journal.sent({ batchId: 'c', first: 400, count: 200, attempt: 1 });
    journal.sent({ batchId: 'c', first: 400, count: 200, attempt: 2 });
    journal.accepted('a', { shard: 0, sequence: 1n });
    journal.accepted('c', { shard: 0, sequence: 3n });
    journal.close();
    const rows = [
      ...range(0, 300).map((n) => rowOf(1, n, { block: 1, lo: 1, hi: 1, accepted: 300 })),
      ...range(300, 600).map((n) => rowOf(1, n, { block: 2, lo: 2, hi: 4, accepted: 300 })),
    ];
    await client.command({ query: 'TRUNCATE TABLE default.events' });
    await client.insert({ table: 'default.events', values: change(rows), format: 'JSONEachRow' });
    return await checkHistory({
      clickhouse: client,
      table: 'default.events',
      tenant: 'chaos',
      sources: [{ source: 1, journal: file }],
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const counts = ({ acked, unknown, stored, lost, doubled, altered, foreign, ledger, retried }: Findings) => ({
  acked,
  unknown,
  stored,
  lost,
  doubled,
  altered,
  foreign,
  ledger,
  retried,
});

test('what is as clients heard it passes, and every difference is found (CHECK-1 to CHECK-5)', async () => {
  await withClickHouse(async ({ url }) => {
    const client = createClient({ url });
    try {
      await client.command({ query: create });
      const well = {
        acked: 500,
        unknown: 100,
        stored: 600,
        lost: 0,
        doubled: 0,
        altered: 0,
        foreign: 0,
        ledger: 0,
        retried: 1,
      };
      const whole = await find(client, (rows) => rows);
      assert.equal(whole.stories, []);
      assert.equal(counts(whole), well);

      // Of a batch whose outcome no client heard, nothing may be there.
      const without = (rows: Row[], from: number, to: number): Row[] =>
        rows
          .filter((_, n) => n < from || n >= to)
          .map((row) => ({ ...row, _accepted: row._block === 2 ? 300 - (to - from) : 300 }));
      assert.equal(counts(await find(client, (rows) => without(rows, 300, 400))), { ...well, stored: 500 });

      // CHECK-1
      const lost = await find(client, (rows) => without(rows, 450, 452));
      assert.equal(counts(lost), { ...well, stored: 598, lost: 2 });
      assert.match(lost.stories[0] ?? '', /lost: events 1-450 to 451 .* batch c .* accepted as sequence 3 of shard 0/);

      // CHECK-2, also where the client never heard of it.
      const twice = { block: 3, lo: 5, hi: 5, accepted: 2 };
      const doubled = await find(client, (rows) => [...rows, rowOf(1, 7, twice), rowOf(1, 310, twice)]);
      assert.equal(counts(doubled), { ...well, stored: 602, doubled: 2 });
      assert.match(doubled.stories[0] ?? '', /doubled: events 1-7 to 7 .* shard 0 block 1 .* and in shard 0 block 3/);

      // CHECK-3
      const altered = await find(client, (rows) =>
        rows.map((row, n) =>
          n === 33 ? { ...row, touch_cost_micros: '1' } : n === 44 ? { ...row, app_id: 'x' } : row,
        ),
      );
      assert.equal(counts(altered), { ...well, altered: 2 });

      // CHECK-4: of another source, of none, and of this one past its end.
      const foreign = await find(client, (rows) => [
        ...rows,
        rowOf(2, 0, { block: 3, lo: 5, hi: 5, accepted: 3 }),
        { ...rowOf(1, 1, { block: 3, lo: 5, hi: 5, accepted: 3 }), event_id: 'who-knows' },
        rowOf(1, 600, { block: 3, lo: 5, hi: 5, accepted: 3 }),
      ]);
      assert.equal({ ...counts(foreign), altered: 0 }, { ...well, stored: 603, foreign: 3 });

      // CHECK-5: a number left out, a range left out, a row less than it says.
      for (const [change, why] of [
        [(row: Row) => (row._block === 2 ? { ...row, _block: 3 } : row), /block 2 is missing/],
        [(row: Row) => (row._block === 2 ? { ...row, _lo: 3 } : row), /begins with 3 instead of 2/],
        [(row: Row) => (row._block === 2 ? { ...row, _accepted: 301 } : row), /has 300 rows and says 301/],
      ] as const) {
        const broken = await find(client, (rows) => rows.map(change));
        assert.is(broken.ledger, 1);
        assert.match(broken.stories[0] ?? '', why);
      }
    } finally {
      await client.close();
    }
  });
});

test.run();
