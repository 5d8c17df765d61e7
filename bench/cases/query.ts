/**
 * The questions that people ask, on a filled table: how long they wait, while nothing else happens and while the workers
 * load.
 */
import { ClickHouseLogLevel, createClient } from '@clickhouse/client';
import type { Command } from 'commander';
import { ensureShards } from '../../lib/log-streams.js';
import { tableLines } from '../../lib/table.js';
import { newHistogram, type Quantiles, quantiles, record } from '../../lib/testing/latency.js';
import { GiB } from '../../lib/units.js';
import { startFleet } from '../fleet.js';
import { positive } from '../options.js';
import { machine, milliseconds, type Result, row, whole } from '../report.js';
import { type BenchClickHouse, eventsTable, type Stack, withStack } from '../stack.js';
import { type CaseOptions, caseCommand, type Progress } from './case.js';
import { fillLog } from './fill.js';

interface QueryOptions extends CaseOptions {
  readonly events: number;
  readonly tenants: number;
  readonly repeats: number;
  readonly loadRate: number;
}

interface Question {
  readonly name: string;
  readonly sql: string;
}

interface Answer {
  readonly rows_read: number;
  readonly ms: Quantiles;
}

const batch = 500;
const spreadDays = 30;
/** While loading, questions are asked for at least so long: several blocks must be stored meanwhile. */
const minLoadingMs = 8_000;
const fillPatienceMs = 600_000;

/** What the table holds to ask about. */
async function questionsFor(clickhouse: BenchClickHouse, tenant: string): Promise<Question[]> {
  const where = `FROM ${eventsTable} WHERE tenant = '${tenant}'`;
  const [one] = await clickhouse.ask(
    `SELECT user_id, batch_id, toString(toDate(occurred_at)) AS day ${where} AND user_id != '' LIMIT 1`,
  );
  const { user_id: user, batch_id: batchId, day } = one ?? {};
  return [
    {
      name: 'count by type and day',
      sql: `SELECT toDate(occurred_at) AS day, type, count() ${where} GROUP BY day, type ORDER BY day, type`,
    },
    {
      name: 'clicks of one day by country',
      sql: `SELECT device_country, count() ${where} AND type = 'click' AND occurred_at >= toDateTime64('${day} 00:00:00', 9, 'UTC') AND occurred_at < toDateTime64('${day} 00:00:00', 9, 'UTC') + INTERVAL 1 DAY GROUP BY device_country ORDER BY 2 DESC`,
    },
    {
      name: 'funnel impression, click, conversion',
      sql: `SELECT level, count() FROM (SELECT anonymous_id, windowFunnel(604800)(toDateTime(occurred_at), type = 'impression', type = 'click', type = 'conversion') AS level ${where} AND type IN ('impression', 'click', 'conversion') GROUP BY anonymous_id) GROUP BY level ORDER BY level`,
    },
    {
      name: 'journey of one user',
      sql: `SELECT occurred_at, type, touch_channel, touch_campaign, value_micros ${where} AND user_id = '${user}' ORDER BY occurred_at LIMIT 1000`,
    },
    {
      name: 'top campaigns by revenue',
      sql: `SELECT touch_campaign, count(), sum(value_micros) AS revenue ${where} AND type = 'conversion' GROUP BY touch_campaign ORDER BY revenue DESC LIMIT 20`,
    },
    {
      name: 'visitors by day',
      sql: `SELECT toDate(occurred_at) AS day, uniq(anonymous_id) ${where} GROUP BY day ORDER BY day`,
    },
    {
      name: 'one batch',
      sql: `SELECT count(), min(_lo), max(_hi) FROM ${eventsTable} WHERE _batch = reinterpretAsUInt128(sipHash128('${tenant}', '${batchId}'))`,
    },
  ];
}

/** Asks each question in turn, again and again, so that what the machine does hits all alike. */
async function askAll(
  url: string,
  questions: readonly Question[],
  repeats: number,
  when: string,
  progress: Progress,
  minMs = 0,
): Promise<Map<string, Answer>> {
  const client = createClient({ url, request_timeout: 120_000, log: { level: ClickHouseLogLevel.ERROR } });
  const times = new Map(questions.map(({ name }) => [name, newHistogram()]));
  const rowsRead = new Map<string, number>();
  try {
    for (const { name, sql } of questions) {
      // What the primary key and the indexes leave to be read. (The embedded engine's own count is of the answer's rows.)
      const answer = await client.query({ query: `EXPLAIN ESTIMATE ${sql}`, format: 'JSONEachRow' });
      const parts = await answer.json<{ rows: string | number }>();
      rowsRead.set(
        name,
        parts.reduce((sum, { rows }) => sum + Number(rows), 0),
      );
    }
    const until = performance.now() + minMs;
    for (let i = 0; i < repeats || performance.now() < until; i++) {
      if (i % 5 === 0) progress(`${when}: ${i} of ${repeats} times`);
      for (const { name, sql } of questions) {
        const from = performance.now();
        await (await client.query({ query: sql, format: 'JSONEachRow' })).json();
        record(times.get(name)!, performance.now() - from);
      }
    }
  } finally {
    await client.close();
  }
  return new Map(
    questions.map(({ name }) => [name, { rows_read: rowsRead.get(name) ?? 0, ms: quantiles(times.get(name)!) }]),
  );
}

async function untilStored(stack: Stack, events: number, progress: Progress): Promise<void> {
  const until = performance.now() + fillPatienceMs;
  for (let told = 0; ; ) {
    const stored = (await Promise.race([stack.clickhouse?.count(), stack.failure])) ?? 0;
    if (stored >= events) return;
    if (performance.now() > until) throw new Error(`ClickHouse has ${stored} of ${events} events after 10 minutes`);
    if (performance.now() - told > 2_000) {
      told = performance.now();
      progress(`filling the table: ${whole(stored)} of ${whole(events)} events`);
    }
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

async function* query(options: QueryOptions, progress: Progress): AsyncGenerator<Result> {
  const { shards, flags, telemetry, profile, repeats, loadRate, seed } = options;
  progress('starting the servers');
  yield await withStack(
    { gateways: 0, workers: 1, workersLater: true, shards, flags, telemetry, profile },
    async (stack): Promise<Result> => {
      const { clickhouse } = stack;
      if (clickhouse === undefined) throw new Error('query needs a worker');
      await ensureShards(stack.nc, { shards, replicas: 1, maxBytes: 4 * GiB });
      await stack.startWorkers();
      const tenants = Array.from({ length: options.tenants }, (_, i) => `${stack.tenant}-${i}`);
      let events = 0;
      for (const [i, tenant] of tenants.entries()) {
        const want = Math.ceil(options.events / tenants.length);
        const filled = await fillLog(
          stack,
          { events: want, batch, shards, tenant, seed: seed + i, spreadDays },
          progress,
        );
        events += filled.events;
        await untilStored(stack, events, progress);
      }
      progress('merging');
      await clickhouse.ask(`OPTIMIZE TABLE ${eventsTable} FINAL`);
      const questions = await questionsFor(clickhouse, tenants[0] ?? '');
      await askAll(clickhouse.url, questions, 2, 'warm-up', progress);
      const idle = await askAll(clickhouse.url, questions, repeats, 'nothing else happens', progress);

      const target = { kind: 'log' as const, natsUrl: stack.natsUrl, shards, subjectRoot: 'ev' };
      const loadSeed = seed + tenants.length;
      const fleet = await startFleet({
        target,
        tenant: `${stack.tenant}-x`,
        batch,
        inFlight: 64,
        seed: loadSeed,
        processes: 1,
      });
      let loading: Map<string, Answer>;
      let storedPerS: number;
      try {
        fleet.mark();
        fleet.begin(loadRate);
        await new Promise((resolve) => setTimeout(resolve, 3_000));
        const [from, before] = [performance.now(), await clickhouse.count()];
        const asked = askAll(clickhouse.url, questions, repeats, 'while loading', progress, minLoadingMs);
        loading = await Promise.race([asked, fleet.failure, stack.failure]);
        storedPerS = ((await clickhouse.count()) - before) / ((performance.now() - from) / 1000);
        await fleet.stop(60_000);
      } finally {
        await fleet.close();
      }
      const of = (name: string) => ({ idle: idle.get(name)!, loading: loading.get(name)! });
      const json = {
        case: 'query',
        rows: events,
        tenants: tenants.length,
        repeats,
        stored_events_per_s: storedPerS,
        questions: Object.fromEntries(
          questions.map(({ name }) => {
            const { idle: a, loading: b } = of(name);
            return [name, { idle_ms: a.ms, loading_ms: b.ms, rows_read: a.rows_read, rows_read_loading: b.rows_read }];
          }),
        ),
      };
      const cells = ({ idle: a, loading: b }: ReturnType<typeof of>) => [
        milliseconds(a.ms.p50),
        milliseconds(a.ms.p95),
        milliseconds(b.ms.p50),
        milliseconds(b.ms.p95),
        whole(a.rows_read),
      ];
      const lines = [
        `query: ${whole(events)} events of ${tenants.length} tenants, ${machine.cpus} × ${machine.model}, Node ${machine.node}`,
        row('loaded meanwhile', `${whole(storedPerS)} events/s`),
        '',
        ...tableLines([
          ['question', 'idle p50', 'p95', 'loading p50', 'p95', 'rows read'],
          ...questions.map(({ name }) => [name, ...cells(of(name))]),
        ]).map((line) => `    ${line}`),
      ];
      return { json, lines, charts: [] };
    },
  );
}

export const queryCommand = (): Command =>
  caseCommand<QueryOptions>({
    name: 'query',
    summary: 'the questions that people ask of a filled table, idle and while loading',
    seconds: 1,
    warmUp: 1,
    add: (command) =>
      command
        .option('--events <n>', 'events in the table', positive(1e9), 5_000_000)
        .option('--tenants <n>', 'that share it; the questions are about one', positive(100), 4)
        .option('--repeats <n>', 'how often each question is asked', positive(10_000), 20)
        .option('--load-rate <events/s>', 'what the workers load meanwhile', positive(10_000_000), 100_000),
    help: `
Figures:
  The table is filled through the log and the worker, with times over 30 days, and merged. Each question is asked
  --repeats times in turn with the others, first while nothing else happens, then while the worker loads --load-rate.
  rows_read: what the primary key and the indexes leave to be read (EXPLAIN ESTIMATE). --seconds, --rate and --warm-up do nothing here.
Examples:
  npm run bench -- query --json
  npm run bench -- query --events 50000000 --load-rate 300000 --report query.html
`,
    run: query,
  });
