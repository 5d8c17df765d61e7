/**
 * What became of one event or batch: every copy that the log still has, the rows in ClickHouse, the dead letters. Reads only.
 *
 * The log is read first and ClickHouse afterwards: what is loaded and trimmed in between is then found there. Copies are judged by
 * their event_ids (copy-fates.ts): a batch id may have been used for other events.
 */
import { fromBinary } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { JetStreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import { type StoredBatch, StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { isStreamMissing } from '../../lib/jetstream-errors.js';
import { generationOf } from '../../lib/log-streams.js';
import type { Logger } from '../../lib/logger.js';
import { streamInfo } from '../../lib/stream-info.js';
import { shardStream } from '../../lib/subjects.js';
import { type DeadLetter, scanDead } from '../loader/dead-scan.js';
import { fingerprintOf } from '../loader/fingerprint.js';
import { keyOf } from '../loader/frames.js';
import { scanLog } from '../loader/log-scan.js';
import type { EventPlace } from '../loader/stored-events.js';
import { framesOf } from '../loader/stored-frames.js';
import { isAnother } from '../reader/end.js';
import type { LogCopy } from './copy-fates.js';
import { fatesOf } from './copy-fates.js';
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

export type Letter = Omit<DeadLetter, 'data'>;

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

export interface WhereOptions {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly store: LedgerStore;
  /** The streams to look at. */
  readonly shards: readonly number[];
  /** Why workers do not load this shard; undefined when they may. */
  readonly stopped: (shard: number) => Promise<string | undefined>;
  /** Whose it may be. */
  readonly tenants: readonly string[];
  /** `tenants` is just the one that was asked for. */
  readonly oneTenant: boolean;
  /** Where events are looked for in ClickHouse. @default all days */
  readonly day?: string | undefined;
  readonly progress: (text: string) => void;
  readonly logger: Logger;
}

/** Copies that are shown. */
const maxCopies = 1_000;
const maxLetters = 1_000_000;
/** Events of a copy that are named as missing. */
const maxMissing = 10;

const nameOf = ({ tenant, batchId }: BatchName): string => keyOf(tenant, batchId);

/** Looks for an event_id or batch_id. Rejects when log or ClickHouse cannot be read. */
export async function where(options: WhereOptions, id: string): Promise<Whereabouts> {
  const { store, tenants, oneTenant } = options;
  const { copies, more } = await copiesOf(options, id);
  const letters = await lettersOf(options, id);

  const named = new Map<string, BatchName>();
  for (const name of [...copies, ...letters]) if (name.batchId !== '') named.set(nameOf(name), name);
  const asBatch = tenants.map((tenant) => ({ tenant, batchId: id }));
  for (const name of asBatch) named.set(nameOf(name), name);
  const names = [...named.values()];
  const rows: StoredRows[] = [];
  for (let i = 0; i < names.length; i += maxNames) rows.push(...(await store.rowsOf(names.slice(i, i + maxNames))));

  const isBatch = [...copies, ...letters, ...rows].some(({ batchId }) => batchId === id);
  let found = rows.filter(({ batchId }) => batchId === id);
  if (!isBatch) {
    found = [];
    const days = (await store.days()).filter((day) => options.day === undefined || day === options.day);
    for (const [i, day] of days.entries()) {
      options.progress(`looking through ${day}, day ${i + 1} of ${days.length}`);
      found.push(...(await store.eventsOn(day, id, oneTenant ? tenants[0] : undefined)));
    }
  }
  const groups = await store.groups();
  const judged = isBatch ? copies.filter(({ batchId }) => batchId === id) : copies;
  const waiting = await waitingCopies(options, judged, groups);
  const fates = await fatesOf(options, judged, isBatch ? undefined : id);
  const result: JudgedCopy[] = [];
  for (const copy of judged) {
    const { known, own, elsewhere, storedBy, missing } = fates.of(copy);
    const letter = letters.find(
      ({ shard, generation, sequence, index }) =>
        shard === copy.shard && generation === copy.generation && sequence === copy.sequence && index === copy.index,
    );
    const hi = groups.find(({ shard, generation }) => shard === copy.shard && generation === copy.generation)?.hi ?? 0;
    const other = waiting.others.has(copy);
    const state = async (): Promise<CopyState> => {
      if (other) return 'not loaded';
      if (own !== undefined) return 'stored';
      if (letter !== undefined) return 'dead';
      if (copy.sequence > hi) return 'in flight';
      if (!known) return found.some((row) => nameOf(row) === nameOf(copy)) ? 'duplicate' : 'gone';
      if (missing.length === 0 && elsewhere > 0) return 'duplicate';
      return (await hasLeftOut(store, copy)) ? 'wrongly left out' : 'gone';
    };
    const judgement = await state();
    const some = missing.slice(0, maxMissing);
    result.push({
      ...copy,
      state: judgement,
      rows: other ? undefined : own,
      elsewhere,
      storedBy,
      missing: some,
      reason: letter?.reason,
      stopped: other || judgement === 'in flight' ? waiting.stopped.get(copy.shard) : undefined,
    });
  }
  const dead = letters
    .filter((letter) => !isBatch || letter.batchId === id || letter.batchId === '')
    .filter(
      (letter) =>
        !judged.some(
          (copy) =>
            copy.shard === letter.shard &&
            copy.generation === letter.generation &&
            copy.sequence === letter.sequence &&
            copy.index === letter.index,
        ),
    );
  const rest = found.flatMap((row) => {
    const rows = row.rows - fates.taken(row);
    return rows > 0 ? [{ ...row, rows }] : [];
  });
  const kind = isBatch ? 'batch' : result.length + rest.length + dead.length > 0 ? 'event' : 'unknown';
  const contents = isBatch ? new Set(judged.map(({ tenant, print }) => `${tenant} ${JSON.stringify(print)}`)).size : 1;
  return { id, kind, copies: result, contents, rows: rest, dead, more };
}

/**
 * Whether the block of a copy has left out duplicates, and no row of it was erased since: then an event of it that is not stored was
 * taken for a duplicate. Erasure empties the log of all that was loaded, so it is not that either.
 */
async function hasLeftOut(store: LedgerStore, { generation, shard, sequence }: LogCopy): Promise<boolean> {
  const block = await store.blockWith(generation, shard, sequence);
  return block !== undefined && block.duplicate > 0 && block.rows === block.accepted;
}

/** Copies whose messages are others than the block of their sequence has, and why the shards of these copies are stopped. */
async function waitingCopies(
  { store, stopped }: WhereOptions,
  copies: readonly LogCopy[],
  groups: readonly BlockGroup[],
): Promise<{ others: ReadonlySet<LogCopy>; stopped: ReadonlyMap<number, string> }> {
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

/** Copies of the batch of this id, and of those that hold an event of this id. */
async function copiesOf(options: WhereOptions, id: string): Promise<{ copies: LogCopy[]; more: boolean }> {
  const { nc, jsm, tenants, oneTenant, logger } = options;
  const copies: LogCopy[] = [];
  const needle = Buffer.from(id);
  let more = false;
  for (const shard of options.shards) {
    const stream = shardStream(shard);
    const info = await streamInfo(jsm, stream).catch((error: unknown) => {
      if (isStreamMissing(error)) return undefined;
      throw error;
    });
    if (info === undefined || info.state.messages === 0) continue;
    const generation = generationOf(info);
    await scanLog({
      nc,
      jsm,
      stream,
      generation,
      from: info.state.first_seq,
      to: info.state.last_seq,
      logger,
      onMessage({ sequence, timeMs, data }) {
        options.progress(`${stream}: message ${sequence} of ${info.state.last_seq}`);
        const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
        if (!bytes.includes(needle)) return;
        for (const frame of framesOf(data)) {
          if (oneTenant && frame.tenant !== tenants[0]) continue;
          const stored = bytes.subarray(frame.from, frame.to);
          if (frame.batchId !== id && !stored.includes(needle)) continue;
          const decoded = decodedFrom(stored);
          const asEvent = decoded?.events.findIndex(({ eventId }) => eventId === id) ?? -1;
          if (frame.batchId !== id && asEvent < 0) continue;
          if (copies.length >= maxCopies) {
            more = true;
            return;
          }
          const { tenant, batchId, index, attempt, events, from, to } = frame;
          copies.push({
            tenant,
            batchId,
            stream,
            shard,
            generation,
            sequence,
            index,
            attempt,
            events,
            eventIndex: batchId === id ? undefined : asEvent,
            receivedAtMs: decoded?.receivedAt === undefined ? undefined : timestampMs(decoded.receivedAt),
            loggedAtMs: timeMs,
            from,
            to,
            print: fingerprintOf(data, { body: from, to }),
          });
        }
      },
    });
  }
  return { copies, more };
}

/** Undefined for bytes that cannot be decoded; when the batch was set aside for it, the reason says more. */
function decodedFrom(stored: Uint8Array): StoredBatch | undefined {
  try {
    return fromBinary(StoredBatchSchema, stored);
  } catch {
    return undefined;
  }
}

/** Dead letters of the batch of this id, or whose bytes have it. A copy that is there twice is shown once. */
async function lettersOf(options: WhereOptions, id: string): Promise<Letter[]> {
  const needle = Buffer.from(id);
  const letters = new Map<string, Letter>();
  await scanDead({
    nc: options.nc,
    jsm: options.jsm,
    tenant: options.oneTenant ? options.tenants[0] : undefined,
    max: maxLetters,
    onLetter({ data, ...letter }) {
      options.progress(`dead letters: ${letter.deadSequence}`);
      if (letter.batchId !== id && !Buffer.from(data.buffer, data.byteOffset, data.length).includes(needle)) return;
      if (letters.size >= maxCopies) return;
      letters.set(`${letter.shard} ${letter.generation} ${letter.sequence} ${letter.index}`, letter);
    },
  });
  return [...letters.values()];
}
