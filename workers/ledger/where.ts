/**
 * What became of one event or batch: every copy that the log still has, the rows in ClickHouse, the dead letters. Reads only.
 *
 * The log is read first and ClickHouse afterwards: what is loaded and trimmed in between is then found there. Copies are judged by
 * their event_ids (copy-fates.ts): a batch id may have been used for other events.
 */
import { keyOf } from '../loader/frames.js';
import type { EventPlace } from '../loader/stored-events.js';
import { isAnother } from '../reader/end.js';
import { type Fates, fatesOf, type LogCopy } from './copy-fates.js';
import { copiesOf, type Letter, type LogSearch, lettersOf } from './id-in-log.js';
import { type BatchName, type BlockGroup, type LedgerStore, maxNames, type StoredRows } from './ledger-store.js';

/**
 * - `stored`: its events are rows of its block; those that a reason is given for are dead letters
 * - `duplicate`: left out, because another copy of the batch with the same events is stored
 * - `wrongly left out`: left out as a duplicate, though the rows of the batch id are other events: what loaders did that compared
 *   numbers of events alone
 * - `dead`: all of it is set aside, see the reason
 * - `in flight`: in the log, not loaded yet
 * - `not loaded`: in the log, which lost its end and gave the message the sequence of one that was loaded (LOAD-8)
 * - `gone`: loaded, and neither it nor another copy has rows: erased since, or lost
 */
export type CopyState = 'stored' | 'duplicate' | 'wrongly left out' | 'dead' | 'in flight' | 'not loaded' | 'gone';

export interface JudgedCopy extends LogCopy {
  readonly state: CopyState;
  /** Rows of the copy, where it is stored. */
  readonly rows: StoredRows | undefined;
  /** Its events, of those that were asked for, that another copy of the batch has stored; and where the first of them is. */
  readonly elsewhere: number;
  readonly storedBy: EventPlace | undefined;
  /** Some of its events that are not stored. */
  readonly missing: readonly string[];
  readonly reason: string | undefined;
  /** Why workers do not load the copy's shard, when it waits to be loaded. */
  readonly stopped: string | undefined;
}

export interface Whereabouts {
  readonly id: string;
  readonly kind: 'batch' | 'event' | 'unknown';
  readonly copies: readonly JudgedCopy[];
  /** Different sets of events that the copies of the batch hold: more than 1 when its id was used again. */
  readonly contents: number;
  /** Rows whose message has left the log; those of `copies` are there. */
  readonly rows: readonly StoredRows[];
  /** Dead letters whose message has left the log. */
  readonly dead: readonly Letter[];
  /** There were more copies than are shown. */
  readonly more: boolean;
}

export interface WhereOptions extends LogSearch {
  readonly store: LedgerStore;
  /** Why workers do not load this shard; undefined when they may. */
  readonly stopped: (shard: number) => Promise<string | undefined>;
  /** Where events are looked for in ClickHouse. @default all days */
  readonly day?: string | undefined;
}

/** Events of a copy that are named as missing. */
const maxMissing = 10;

const nameOf = ({ tenant, batchId }: BatchName): string => keyOf(tenant, batchId);

/** A copy, or the copy that a dead letter is of. */
type CopyPlace = Pick<LogCopy, 'shard' | 'generation' | 'sequence' | 'index'>;
const isSameCopy = (a: CopyPlace, b: CopyPlace): boolean =>
  a.shard === b.shard && a.generation === b.generation && a.sequence === b.sequence && a.index === b.index;

/** Looks for an event_id or batch_id. Rejects when log or ClickHouse cannot be read. */
export async function where(options: WhereOptions, id: string): Promise<Whereabouts> {
  const { store } = options;
  const { copies: seen, more } = await copiesOf(options, id);
  const letters = await lettersOf(options, id);
  const rows = await rowsOfBatches(options, id, [...seen, ...letters]);
  const isBatch = [...seen, ...letters, ...rows].some(({ batchId }) => batchId === id);
  const isMeant = ({ batchId }: BatchName): boolean => !isBatch || batchId === id;
  const found = isBatch ? rows.filter(isMeant) : await rowsOfEvent(options, id);
  const groups = await store.groups();
  const logged = seen.filter(isMeant);
  const waiting = await waitingCopies(options, logged, groups);
  const fates = await fatesOf(options, logged, isBatch ? undefined : id);
  const evidence: Evidence = { store, letters, rows: found, groups, waiting, fates };
  const copies: JudgedCopy[] = [];
  for (const copy of logged) copies.push(await judgedBy(evidence, copy));
  const dead = letters
    .filter((letter) => isMeant(letter) || letter.batchId === '')
    .filter((letter) => !logged.some((copy) => isSameCopy(copy, letter)));
  const rest = found.flatMap((row) => {
    const left = row.rows - fates.taken(row);
    return left > 0 ? [{ ...row, rows: left }] : [];
  });
  const kind = isBatch ? 'batch' : copies.length + rest.length + dead.length > 0 ? 'event' : 'unknown';
  const contents = isBatch ? new Set(logged.map(({ tenant, print }) => `${tenant} ${JSON.stringify(print)}`)).size : 1;
  return { id, kind, copies, contents, rows: rest, dead, more };
}

/** Rows of these batches, and of those of this id. */
async function rowsOfBatches(
  { store, tenants }: WhereOptions,
  id: string,
  batches: readonly BatchName[],
): Promise<StoredRows[]> {
  const named = new Map<string, BatchName>();
  for (const name of batches) if (name.batchId !== '') named.set(nameOf(name), name);
  for (const name of tenants.map((tenant) => ({ tenant, batchId: id }))) named.set(nameOf(name), name);
  const names = [...named.values()];
  const rows: StoredRows[] = [];
  for (let i = 0; i < names.length; i += maxNames) rows.push(...(await store.rowsOf(names.slice(i, i + maxNames))));
  return rows;
}

/** Rows of the batches that hold this event, day by day. */
async function rowsOfEvent(
  { store, tenants, oneTenant, day: only, progress }: WhereOptions,
  id: string,
): Promise<StoredRows[]> {
  const rows: StoredRows[] = [];
  const days = (await store.days()).filter((day) => only === undefined || day === only);
  for (const [i, day] of days.entries()) {
    progress(`looking through ${day}, day ${i + 1} of ${days.length}`);
    rows.push(...(await store.eventsOn(day, id, oneTenant ? tenants[0] : undefined)));
  }
  return rows;
}

/** What a copy is judged by. */
interface Evidence {
  readonly store: LedgerStore;
  readonly letters: readonly Letter[];
  /** Rows of the batch, or of those that hold the event. */
  readonly rows: readonly StoredRows[];
  readonly groups: readonly BlockGroup[];
  readonly waiting: WaitingCopies;
  readonly fates: Fates;
}

async function judgedBy(evidence: Evidence, copy: LogCopy): Promise<JudgedCopy> {
  const { letters, waiting, fates } = evidence;
  const { own, elsewhere, storedBy, missing } = fates.of(copy);
  const letter = letters.find((one) => isSameCopy(one, copy));
  const state = await stateOf(evidence, copy, letter);
  return {
    ...copy,
    state,
    rows: state === 'not loaded' ? undefined : own,
    elsewhere,
    storedBy,
    missing: missing.slice(0, maxMissing),
    reason: letter?.reason,
    stopped: state === 'not loaded' || state === 'in flight' ? waiting.stopped.get(copy.shard) : undefined,
  };
}

async function stateOf(
  { store, rows, groups, waiting, fates }: Evidence,
  copy: LogCopy,
  letter: Letter | undefined,
): Promise<CopyState> {
  const { known, own, elsewhere, missing } = fates.of(copy);
  if (waiting.others.has(copy)) return 'not loaded';
  if (own !== undefined) return 'stored';
  if (letter !== undefined) return 'dead';
  const group = groups.find(({ shard, generation }) => shard === copy.shard && generation === copy.generation);
  if (copy.sequence > (group?.hi ?? 0)) return 'in flight';
  if (!known) return rows.some((row) => nameOf(row) === nameOf(copy)) ? 'duplicate' : 'gone';
  if (missing.length === 0 && elsewhere > 0) return 'duplicate';
  return (await hasLeftOut(store, copy)) ? 'wrongly left out' : 'gone';
}

/**
 * Whether the block of a copy has left out duplicates, and no row of it was erased since: then an event of it that is not stored was
 * taken for a duplicate. Erasure empties the log of all that was loaded, so it is not that either.
 */
async function hasLeftOut(store: LedgerStore, { generation, shard, sequence }: LogCopy): Promise<boolean> {
  const block = await store.blockWith(generation, shard, sequence);
  return block !== undefined && block.duplicate > 0 && block.rows === block.accepted;
}

/** What of these copies waits for an operator. */
interface WaitingCopies {
  /** Copies whose messages are others than the block of their sequence has. */
  readonly others: ReadonlySet<LogCopy>;
  /** Why their shards are stopped, by shard. */
  readonly stopped: ReadonlyMap<number, string>;
}

async function waitingCopies(
  { store, stopped }: WhereOptions,
  copies: readonly LogCopy[],
  groups: readonly BlockGroup[],
): Promise<WaitingCopies> {
  const others = new Set<LogCopy>();
  const reasons = new Map<number, string>();
  for (const shard of new Set(copies.map((copy) => copy.shard))) {
    const reason = await stopped(shard);
    if (reason === undefined) continue;
    reasons.set(shard, reason);
    for (const copy of copies) {
      const group = groups.find((of) => of.shard === shard && of.generation === copy.generation);
      if (copy.shard !== shard || group === undefined || copy.sequence > group.hi) continue;
      const block = await store.blockWith(copy.generation, shard, copy.sequence);
      if (block !== undefined && isAnother(copy.loggedAtMs, block)) others.add(copy);
    }
  }
  return { others, stopped: reasons };
}
