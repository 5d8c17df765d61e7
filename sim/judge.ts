/**
 * The verdict on a world that has come to rest: compares what the clients heard with the table, and each block's counts with its
 * messages. It trusts no count of the judged code.
 */
import type { History } from './history.js';
import type { SimulatedLog } from './log.js';
import type { StoredMessage } from './log-store.js';
import type { Part, SimulatedSink } from './sink.js';
import { type StoredBatch, storedBatches } from './stored.js';

export interface WorldVerdict {
  /** What is wrong, in words; nothing when all is well. */
  readonly faults: readonly string[];
  readonly acked: number;
  readonly stored: number;
  readonly duplicates: number;
  readonly dead: number;
  /** Acknowledged, and lost with what the log itself forgot: allowed for durability `accepted` alone. */
  readonly forgotten: number;
}

export interface Evidence {
  readonly history: History;
  readonly log: SimulatedLog;
  readonly sink: SimulatedSink;
  /** What lies in the dead letters. */
  readonly dead: ReadonlySet<string>;
}

const few = (ids: Iterable<string>): string => {
  const all = [...ids];
  return all.length <= 5 ? all.join(', ') : `${all.slice(0, 5).join(', ')} and ${all.length - 5} more`;
};

export function judge({ history, log, sink, dead }: Evidence): WorldVerdict {
  const faults: string[] = [...history.oddities];

  const times = new Map<string, number>();
  for (const part of sink.parts) {
    for (const { eventId } of part.rows) times.set(eventId, (times.get(eventId) ?? 0) + 1);
  }
  const doubled = [...times].filter(([, n]) => n > 1).map(([id]) => id);
  if (doubled.length > 0) faults.push(`stored more than once: ${few(doubled)}`);
  const foreign = [...times.keys()].filter((id) => !history.all.has(id));
  if (foreign.length > 0) faults.push(`stored and never sent: ${few(foreign)}`);
  const invalid = [...history.invalid].filter((id) => times.has(id));
  if (invalid.length > 0) faults.push(`refused as invalid, and stored: ${few(invalid)}`);

  const { alive, known } = eventsOfLog(log);
  const missing = (of: ReadonlySet<string>): string[] => [...of].filter((id) => !times.has(id) && !dead.has(id));
  const uncommitted = missing(history.committed);
  if (uncommitted.length > 0) faults.push(`told to be committed, and not stored: ${few(uncommitted)}`);
  const notStored = missing(history.accepted);
  const lost = notStored.filter((id) => !known.has(id) || alive.has(id));
  if (lost.length > 0) faults.push(`acknowledged, and not stored: ${few(lost)}`);
  // Also what no client heard of: the loader has no right to leave out what is nowhere.
  const swallowed = leftOut(log, sink.parts).filter(
    (id) => !times.has(id) && !dead.has(id) && !history.invalid.has(id),
  );
  if (swallowed.length > 0) faults.push(`left out of a block, and stored nowhere: ${few(swallowed)}`);
  const both = [...dead].filter((id) => times.has(id));
  if (both.length > 0) faults.push(`stored, and in the dead letters: ${few(both)}`);

  faults.push(...ledgerFaults(log, sink.parts));
  return {
    faults,
    acked: history.accepted.size,
    stored: times.size,
    duplicates: sink.parts.reduce((sum, part) => sum + part.duplicate, 0),
    dead: dead.size,
    forgotten: notStored.length - lost.length,
  };
}

/** Events that the log has had, and those of them that it has not forgotten: trimming forgets nothing. */
function eventsOfLog(log: SimulatedLog): { readonly known: ReadonlySet<string>; readonly alive: ReadonlySet<string> } {
  const alive = new Set<string>();
  const known = new Set<string>();
  for (const message of log.history.flatMap(({ messages }) => messages)) {
    for (const id of batchesOf(message).flatMap(({ eventIds }) => eventIds)) {
      known.add(id);
      if (!message.forgotten) alive.add(id);
    }
  }
  return { known, alive };
}

/**
 * What a worker says is committed must be stored at that moment, or be in the dead letters: what comes later excuses nothing.
 * @returns called with each such word
 */
export function watchCommits({ history, log, sink, dead }: Evidence) {
  const stored = new Set<string>();
  /** Messages that were looked at, by stream. */
  const checked = new Map<string, number>();
  let parts = 0;
  return (shard: number, generation: string, sequence: number): void => {
    for (; parts < sink.parts.length; parts++) for (const { eventId } of sink.parts[parts]!.rows) stored.add(eventId);
    const found = log.history.find(({ stream }) => stream.generation === generation && stream.shard === shard);
    // A log that gave positions out twice cannot be compared by them.
    if (found === undefined || found.messages.some(({ forgotten }) => forgotten)) return;
    const name = `${generation}/${shard}`;
    const from = checked.get(name) ?? 0;
    if (sequence <= from) return;
    checked.set(name, sequence);
    const missing = found.messages
      .filter((message) => message.sequence > from && message.sequence <= sequence)
      .flatMap((message) => batchesOf(message).flatMap(({ eventIds }) => eventIds))
      .filter((id) => !stored.has(id) && !dead.has(id));
    if (missing.length > 0) history.odd(`committed up to ${name}/${sequence}, and not stored yet: ${few(missing)}`);
  };
}

function batchesOf(message: StoredMessage): StoredBatch[] {
  try {
    return storedBatches(message.data);
  } catch {
    return [];
  }
}

/** Events of messages that a block stands for. */
function leftOut(log: SimulatedLog, parts: readonly Part[]): string[] {
  return log.history.flatMap(({ stream, messages }) => {
    // A log that gave positions out twice cannot be compared by them.
    if (messages.some((message) => message.forgotten)) return [];
    const loaded = parts.filter((part) => part.generation === stream.generation && part.shard === stream.shard);
    return messages
      .filter(({ sequence }) => loaded.some(({ lo, hi }) => lo <= sequence && sequence <= hi))
      .flatMap((message) => batchesOf(message).flatMap(({ eventIds }) => eventIds));
  });
}

/** Blocks of a stream are numbered 1, 2, …, their ranges touch, and each stands for all events of its messages. */
function ledgerFaults(log: SimulatedLog, parts: readonly Part[]): string[] {
  return log.history.flatMap(({ stream, messages }) => {
    const blocks = parts
      .filter((part) => part.generation === stream.generation && part.shard === stream.shard)
      .sort((a, b) => a.block - b.block);
    // A log that gave positions out twice cannot be counted by them.
    const counted = messages.some((message) => message.forgotten) ? undefined : messages;
    return blocks.flatMap((part, i) => blockFaults(part, i + 1, (blocks[i - 1]?.hi ?? 0) + 1, counted));
  });
}

/** @param lo where it has to begin */
function blockFaults(part: Part, number: number, lo: number, messages: readonly StoredMessage[] | undefined): string[] {
  const faults: string[] = [];
  const name = `block ${part.generation}/${part.shard}/${part.block}`;
  if (part.block !== number) faults.push(`${name} is the ${number}. of its stream`);
  if (part.lo !== lo) faults.push(`${name} begins with ${part.lo} after ${lo - 1}`);
  if (part.rows.length !== part.accepted) faults.push(`${name} says ${part.accepted} rows and has ${part.rows.length}`);
  if (messages === undefined) return faults;
  const events = messages
    .filter(({ sequence }) => sequence >= part.lo && sequence <= part.hi)
    .reduce((sum, message) => sum + batchesOf(message).reduce((n, batch) => n + batch.eventIds.length, 0), 0);
  if (events !== part.accepted + part.duplicate + part.dead) {
    faults.push(
      `${name}: ${events} events in its messages are not ${part.accepted} + ${part.duplicate} + ${part.dead}`,
    );
  }
  return faults;
}
