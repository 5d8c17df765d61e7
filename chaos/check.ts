/**
 * The check of a history: what clients heard against what ClickHouse has. Never a count minus a distinct count.
 *
 *   CHECK-1  An event that was acknowledged is stored (else: lost).
 *   CHECK-2  An event is stored at most once, acknowledged or not (else: doubled).
 *   CHECK-3  A stored event has the values that were sent (else: altered).
 *   CHECK-4  Nothing is stored that no client sent (else: foreign).
 *   CHECK-5  The blocks of a shard are numbered from 1, their ranges follow one another, and each has the rows that it says (else: a
 *       fault of the ledger).
 *
 * ClickHouse compares the values and hands back runs of consecutive numbers, in slices; here there is a byte for each event.
 */
import type { ClickHouseClient } from '@clickhouse/client';
import { eventId, idColumns, wrongValues } from './events.js';
import { type BatchHistory, readJournal } from './journal.js';

export interface HistoryOptions {
  readonly clickhouse: ClickHouseClient;
  /** `database.table`. */
  readonly table: string;
  readonly tenant: string;
  readonly sources: readonly { readonly source: number; readonly journal: string }[];
}

export interface Findings {
  /** Events that a client heard to be accepted. */
  acked: number;
  /** Sent, and the client never heard. */
  unknown: number;
  /** Rows of events. */
  stored: number;
  lost: number;
  /** Rows beyond the first of an event. */
  doubled: number;
  altered: number;
  foreign: number;
  ledger: number;
  /** Batches that were sent more than once. */
  retried: number;
  /** What is known of the first findings, a line each. */
  stories: string[];
}

enum State {
  Unsent = 0,
  Unknown = 1,
  Acked = 2,
}

const sliceEvents = 1_000_000;
const maxStories = 12;

interface Source {
  readonly source: number;
  readonly journal: string;
  readonly states: Uint8Array;
}

export async function checkHistory(options: HistoryOptions): Promise<Findings> {
  const { table, tenant } = options;
  const findings: Findings = {
    acked: 0,
    unknown: 0,
    stored: 0,
    lost: 0,
    doubled: 0,
    altered: 0,
    foreign: 0,
    ledger: 0,
    retried: 0,
    stories: [],
  };
  const ask = async <T>(query: string): Promise<T[]> => {
    const answer = await options.clickhouse.query({ query, format: 'JSONEachRow' });
    return await answer.json<T>();
  };
  const sources = options.sources.map((one) => readSource(one, findings));
  const rows = `(SELECT *, ${idColumns} FROM ${table} WHERE tenant = '${tenant}')`;

  // CHECK-3
  for (const row of await ask<{ wrong: string[]; count: string; example: string }>(
    `SELECT ${wrongValues} AS wrong, toString(count()) AS count, any(event_id) AS example FROM ${rows} GROUP BY wrong HAVING notEmpty(wrong)`,
  )) {
    findings.altered += Number(row.count);
    tell(findings, `altered: ${row.count} events have other values in ${row.wrong.join(', ')}, e.g. ${row.example}`);
  }

  // CHECK-1, CHECK-2, CHECK-4
  const known = sources.map(({ source }) => source).join(', ') || '-1';
  const [strangers] = await ask<{ count: string; example: string }>(
    `SELECT toString(count()) AS count, any(event_id) AS example FROM ${rows} WHERE s NOT IN (${known}) OR n = 4294967295`,
  );
  if (Number(strangers?.count) > 0) {
    findings.foreign += Number(strangers?.count);
    findings.stored += Number(strangers?.count);
    tell(findings, `foreign: ${strangers?.count} events that no client made, e.g. ${strangers?.example}`);
  }
  for (const slice of slicesOf(sources)) {
    const bySource = new Map(slice.map((one) => [one.source, one]));
    const runs = await ask<{ s: number; lo: number; hi: number; c: string }>(
      'SELECT s, min(n) AS lo, max(n) AS hi, toString(c) AS c FROM (' +
        'SELECT s, n, c, n - row_number() OVER (PARTITION BY s, c ORDER BY n) AS run FROM (' +
        `SELECT s, n, count() AS c FROM ${rows} WHERE s IN (${slice.map(({ source }) => source).join(', ')}) ` +
        'AND n != 4294967295 GROUP BY s, n)) GROUP BY s, c, run ORDER BY s, lo',
    );
    const seen = new Map(slice.map((one) => [one.source, new Uint8Array(one.states.length)]));
    for (const run of runs) {
      const one = bySource.get(run.s);
      const count = Number(run.c);
      findings.stored += (run.hi - run.lo + 1) * count;
      if (one === undefined) continue;
      noteStored(one, run, count, seen.get(run.s) as Uint8Array, findings);
      if (count > 1) {
        findings.doubled += (run.hi - run.lo + 1) * (count - 1);
        tell(findings, await storyOfDouble(ask, table, one, run));
      }
    }
    for (const one of slice) findLost(one, seen.get(one.source) as Uint8Array, findings);
  }
  await checkLedger(ask, table, findings);
  return findings;
}

/** Marks a run of stored events as seen; what was never sent is foreign. */
function noteStored(
  { source, states }: Source,
  { lo, hi }: { readonly lo: number; readonly hi: number },
  count: number,
  seen: Uint8Array,
  findings: Findings,
): void {
  for (let n = lo; n <= hi; n++) {
    if (n >= states.length || states[n] === State.Unsent) {
      findings.foreign += count;
      tell(findings, `foreign: ${eventId(source, n)} is stored, and was never sent`);
    } else seen[n] = 1;
  }
}

function tell(findings: Findings, story: string): void {
  if (findings.stories.length < maxStories) findings.stories.push(story);
}

function readSource({ source, journal }: { source: number; journal: string }, findings: Findings): Source {
  const batches = readJournal(journal);
  let max = 0;
  for (const { first, count } of batches.values()) max = Math.max(max, first + count);
  const states = new Uint8Array(max);
  for (const [batchId, { first, count, sends, state }] of batches) {
    for (let n = first; n < first + count; n++) {
      if (states[n] !== State.Unsent)
        throw new Error(`${journal}: event ${eventId(source, n)} was sent in two batches, one of them ${batchId}`);
    }
    // Refused after more than one send says nothing of the sends before.
    states.fill(state === 'accepted' ? State.Acked : State.Unknown, first, first + count);
    if (state === 'accepted') findings.acked += count;
    else findings.unknown += count;
    if (sends > 1) findings.retried++;
  }
  return { source, journal, states };
}

/** Sources together, about a million events at a time. */
function slicesOf(sources: readonly Source[]): Source[][] {
  const slices: Source[][] = [];
  let size = Number.POSITIVE_INFINITY;
  for (const source of sources) {
    if (size + source.states.length > sliceEvents) {
      slices.push([]);
      size = 0;
    }
    slices.at(-1)?.push(source);
    size += source.states.length;
  }
  return slices;
}

function batchOf(source: Source, n: number): [string, BatchHistory] | undefined {
  return [...readJournal(source.journal)].find(([, { first, count }]) => n >= first && n < first + count);
}

function findLost(source: Source, seen: Uint8Array, findings: Findings): void {
  for (let n = 0; n < seen.length; n++) {
    if (source.states[n] !== State.Acked || seen[n] === 1) continue;
    const from = n;
    while (n + 1 < seen.length && source.states[n + 1] === State.Acked && seen[n + 1] === 0) n++;
    findings.lost += n + 1 - from;
    if (findings.stories.length >= maxStories) continue;
    const [batchId, batch] = batchOf(source, from) ?? ['?', undefined];
    tell(
      findings,
      `lost: events ${eventId(source.source, from)} to ${n} were acknowledged; batch ${batchId} (events ${batch?.first} to ` +
        `${(batch?.first ?? 0) + (batch?.count ?? 0) - 1}, ${batch?.sends} sends, attempt ${batch?.attempt}, accepted as ${batch?.place})`,
    );
  }
}

async function storyOfDouble(
  ask: <T>(query: string) => Promise<T[]>,
  table: string,
  source: Source,
  run: { readonly s: number; readonly lo: number; readonly hi: number },
): Promise<string> {
  const places = await ask<Record<string, string | number>>(
    'SELECT _stream, _shard, _block, _lo, _hi, _attempt, batch_id, toString(received_at) AS received ' +
      `FROM ${table} WHERE event_id = '${eventId(run.s, run.lo)}' ORDER BY _shard, _block`,
  );
  const [, batch] = batchOf(source, run.lo) ?? [];
  return (
    `doubled: events ${eventId(run.s, run.lo)} to ${run.hi} (${batch?.sends} sends, last told: ${batch?.state}, ${batch?.place}) are in ` +
    places
      .map(
        (place) =>
          `shard ${place._shard} block ${place._block} (sequences ${place._lo} to ${place._hi} of ${place._stream}) as attempt ` +
          `${place._attempt} of ${place.batch_id}, received ${place.received}`,
      )
      .join('; and in ')
  );
}

async function checkLedger(ask: <T>(query: string) => Promise<T[]>, table: string, findings: Findings): Promise<void> {
  const blocks = await ask<{
    stream: string;
    shard: number;
    block: string;
    lo: string;
    hi: string;
    rows: string;
    said: string;
    kinds: string;
  }>(
    'SELECT toString(_stream) AS stream, _shard AS shard, toString(_block) AS block, toString(min(_lo)) AS lo, toString(max(_hi)) AS hi, ' +
      "toString(countIf(tenant != '')) AS rows, toString(any(_accepted)) AS said, toString(uniqExact(_lo, _hi, _day, _accepted)) AS kinds " +
      `FROM ${table} GROUP BY _stream, _shard, _block ORDER BY _stream, _shard, _block`,
  );
  let before: { stream: string; shard: number; block: number; hi: number } | undefined;
  for (const row of blocks) {
    const { stream, shard } = row;
    const same = before !== undefined && before.stream === stream && before.shard === shard;
    const expected = same ? (before?.block ?? 0) + 1 : 1;
    const lo = same ? (before?.hi ?? 0) + 1 : 1;
    const wrong = [
      Number(row.block) === expected ? '' : `block ${expected} is missing`,
      Number(row.lo) === lo ? '' : `it begins with ${row.lo} instead of ${lo}`,
      row.rows === row.said ? '' : `it has ${row.rows} rows and says ${row.said}`,
      row.kinds === '1' ? '' : 'its rows contradict one another',
    ].filter((one) => one !== '');
    if (wrong.length > 0) {
      findings.ledger++;
      tell(
        findings,
        `ledger: shard ${shard} block ${row.block} (${row.lo} to ${row.hi} of ${stream}): ${wrong.join(', ')}`,
      );
    }
    before = { stream, shard, block: Number(row.block), hi: Number(row.hi) };
  }
}
