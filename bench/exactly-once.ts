/**
 * Is what was acknowledged stored, exactly once? Asked of ClickHouse in slices, so that it takes little memory however
 * long the run was: first, slice by slice of blocks, each batch with exactly its events, each event_id once; then, slice by
 * slice of hashes, that no batch comes in two places. An event_id belongs to one batch of the generator (payload.ts).
 */

/** One row of an answer. */
export type AskClickHouse = (query: string) => Promise<Record<string, string>[]>;

export interface Expected {
  /** Batches that were acknowledged. */
  readonly batches: number;
  /** Events of each. */
  readonly eventsPerBatch: number;
  /** Batches that were sent again: so many may be there twice, when both sends were accepted. */
  readonly resends: number;
  /** Not all need be there yet. */
  readonly atMost?: boolean;
}

export interface Checked {
  readonly events: number;
  readonly batches: number;
  /** Batches that are there a second time after the client sent them again. */
  readonly stored_twice: number;
}

const rowsPerSlice = 2_000_000;
const batchesPerSlice = 2_000_000;

/** @throws Error that says what is missing, doubled or cut */
export async function checkExactlyOnce(
  ask: AskClickHouse,
  table: string,
  expected: Expected,
  progress: (line: string) => void,
): Promise<Checked> {
  const perBatch = expected.eventsPerBatch;
  const slices = await slicesOf(ask, table);
  let events = 0;
  let places = 0;
  let twice = 0;
  for (const [index, slice] of slices.entries()) {
    if (index > 0 && index % 20 === 0) progress(`comparing what is stored: ${index} of ${slices.length} slices`);
    const [row = {}] = await ask(
      // Of batches of one event the count says it all.
      `SELECT count() AS batches, sum(rows) AS events, ` +
        `countIf(ids != ${perBatch} OR NOT (rows = ${perBatch} OR (rows % ${perBatch} = 0 AND attempt > 1))) AS odd, ` +
        `countIf(rows > ${perBatch}) AS twice, anyIf(toString(_batch), ids != ${perBatch}) AS example ` +
        `FROM (SELECT _batch, count() AS rows, max(_attempt) AS attempt, ` +
        `${perBatch === 1 ? '1' : 'uniqExact(event_id)'} AS ids FROM ${table} WHERE ${slice} GROUP BY _batch)`,
    );
    if (Number(row.odd) > 0) {
      throw new Error(`${row.odd} batches do not have exactly their ${perBatch} events where ${slice}: ${row.example}`);
    }
    events += Number(row.events);
    places += Number(row.batches);
    twice += Number(row.twice);
  }
  const parts = Math.max(1, Math.ceil(expected.batches / batchesPerSlice));
  let batches = 0;
  for (let part = 0; part < parts; part++) {
    const where = parts === 1 ? '' : ` WHERE _batch % ${parts} = ${part}`;
    const [row = {}] = await ask(`SELECT uniqExact(_batch) AS batches FROM ${table}${where}`);
    batches += Number(row.batches);
  }
  twice += places - batches;
  if (expected.atMost === true ? batches > expected.batches : batches !== expected.batches) {
    throw new Error(`${expected.batches} batches were acknowledged, but ${batches} are stored`);
  }
  if (twice > expected.resends) {
    throw new Error(`${twice} batches are stored twice, though only ${expected.resends} were sent again`);
  }
  return { events, batches, stored_twice: twice };
}

/** Conditions that cut the table along its blocks, of which each batch is in one. */
async function slicesOf(ask: AskClickHouse, table: string): Promise<string[]> {
  const blocks = await ask(
    `SELECT _shard AS shard, _block AS block, count() AS rows FROM ${table} GROUP BY _shard, _block ORDER BY _shard, _block`,
  );
  const slices: { shard: string; from: string; to: string; rows: number }[] = [];
  for (const { shard = '', block = '', rows } of blocks) {
    const last = slices.at(-1);
    if (last !== undefined && last.shard === shard && last.rows + Number(rows) <= rowsPerSlice) {
      last.to = block;
      last.rows += Number(rows);
    } else {
      slices.push({ shard, from: block, to: block, rows: Number(rows) });
    }
  }
  return slices.map(({ shard, from, to }) => `_shard = ${shard} AND _block BETWEEN ${from} AND ${to}`);
}
