/**
 * A simulated ClickHouse, as far as the loader's protocol leans on it: a table of parts that appear whole or not at all, the
 * probe of an insert-if-absent that is read when the statement begins, the refusal of a second running query of one id, and
 * everything that a request can do to its sender: be lost, come late, lose its answer.
 */
import type { Block } from '../workers/loader/block.js';
import { type Fingerprint, fingerprintOfIds } from '../workers/loader/fingerprint.js';
import type { FoundBlock, Place } from '../workers/loader/loader.js';
import type { EventsOfBatch, Identity } from '../workers/loader/stored-events.js';
import type { Process } from './process.js';
import { request, SinkFailure } from './sink-request.js';
import { type StoredBatch, storedBatches } from './stored.js';
import type { World } from './world.js';

/** An event in the table. */
export interface Row {
  readonly batch: StoredBatch;
  readonly eventId: string;
}

/** One INSERT. */
export interface Part {
  readonly day: string;
  readonly generation: string;
  readonly shard: number;
  readonly block: number;
  readonly lo: number;
  readonly hi: number;
  /** When the log took the message `hi`, ms. */
  readonly hiAtMs: number;
  readonly accepted: number;
  readonly duplicate: number;
  readonly dead: number;
  readonly rows: readonly Row[];
}

/** What of the server's guarantees is switched off, for the mutations. */
export interface SinkWeakness {
  /** Statements do not look whether their block is there. */
  readonly noProbe?: boolean;
  /** Two queries of one id may run. */
  readonly noQueryId?: boolean;
  /**
   * In place of the probe, a log of deduplication tokens that is written before the part is there, as plain MergeTree does
   * (FACT-7): a server that dies in between has the token and not the rows.
   */
  readonly tokenOnly?: boolean;
}

/** The last block of a shard, as {@link SimulatedSink.lastBlock} finds it. */
interface LastBlock {
  readonly block: number;
  readonly hi: number;
  readonly hiAtMs: number;
  readonly others: readonly { readonly generation: string; readonly hi: number }[];
}

export interface SimulatedSink {
  readonly parts: readonly Part[];
  lastBlock(owner: Process, shard: number, generation: string, fromDay: string | undefined): Promise<LastBlock>;
  readBack(owner: Process, shard: number, place: Place, day: string): Promise<FoundBlock | undefined>;
  insert(owner: Process, shard: number, place: Place, block: Block): Promise<void>;
  /** Runs the block without storing it. Rejects as the INSERT would. */
  dryRun(owner: Process, messages: readonly Uint8Array[]): Promise<void>;
  fingerprints(owner: Process, batches: readonly Identity[]): Promise<Fingerprint[]>;
  eventCounts(owner: Process, questions: readonly EventsOfBatch[]): Promise<Map<string, number>[]>;
  retriedSince(owner: Process, sinceMs: number, most: number): Promise<Identity[]>;
  /** Killed, and up again after `ms`. What runs dies. */
  restart(ms: number): void;
  /** Calls back once, when the next INSERT begins, with whose it is. */
  onNextInsert(run: (owner: Process) => void): void;
}

export interface SinkOptions {
  /** An event that the table does not take, whatever is done. */
  readonly poisonous: (eventId: string) => boolean;
  readonly weakness: SinkWeakness;
}

/** The rows of these messages, or why the table does not take them. */
function contentOf(messages: readonly Uint8Array[], { poisonous }: SinkOptions): Row[] | SinkFailure {
  const rows: Row[] = [];
  try {
    for (const message of messages) {
      for (const batch of storedBatches(message)) {
        for (const eventId of batch.eventIds) {
          if (poisonous(eventId)) return new SinkFailure('content', `cannot parse ${eventId}`);
          rows.push({ batch, eventId });
        }
      }
    }
  } catch (error) {
    return new SinkFailure('content', String(error));
  }
  return rows;
}

/** A block's own parts: one, or more when a guarantee is switched off. */
const partsOf = (parts: readonly Part[], shard: number, { generation, block }: Place, day: string): Part[] =>
  parts.filter(
    (part) => part.day === day && part.shard === shard && part.generation === generation && part.block === block,
  );

function lastOf(of: readonly Part[]): Omit<LastBlock, 'others'> {
  const block = Math.max(0, ...of.map((part) => part.block));
  return {
    block,
    hi: Math.max(0, ...of.map((part) => part.hi)),
    hiAtMs: of.find((part) => part.block === block)?.hiAtMs ?? 0,
  };
}

function lastBlock(parts: readonly Part[], shard: number, generation: string, fromDay: string | undefined): LastBlock {
  const mine = parts.filter((part) => part.shard === shard);
  const own = mine.filter((part) => part.generation === generation);
  const near = own.filter((part) => fromDay !== undefined && part.day >= fromDay);
  if (near.length > 0) return { ...lastOf(near), others: [] };
  if (own.length > 0) return { ...lastOf(own), others: [] };
  const others = [...new Set(mine.map((part) => part.generation))];
  return {
    ...lastOf([]),
    others: others.map((of) => ({ generation: of, hi: lastOf(mine.filter((part) => part.generation === of)).hi })),
  };
}

/** Batches of another attempt than 1 that gateways took from then on. */
function retriedIn(parts: readonly Part[], sinceMs: number): Identity[] {
  const found = new Map<string, Identity>();
  for (const { batch } of parts.flatMap(({ rows }) => rows)) {
    if (batch.attempt === 1 || batch.receivedAtMs < sinceMs) continue;
    found.set(`${batch.tenant}/${batch.batchId}`, { tenant: batch.tenant, batchId: batch.batchId });
  }
  return [...found.values()];
}

/** The event ids of a batch, each as often as it is there. */
const idsOf = (parts: readonly Part[], { tenant, batchId }: Identity): string[] =>
  parts.flatMap(({ rows }) =>
    rows.filter(({ batch }) => batch.tenant === tenant && batch.batchId === batchId).map(({ eventId }) => eventId),
  );

/** What the sink is at: its table, and what runs. */
interface SinkState {
  readonly world: World;
  readonly options: SinkOptions;
  readonly parts: Part[];
  /** Names of blocks whose INSERT runs. */
  readonly running: Set<string>;
  readonly tokens: Set<string>;
  /** Called once each, when an INSERT begins. */
  readonly curious: ((owner: Process) => void)[];
  up: boolean;
  /** Changes with each death: what ran before ends nothing. */
  life: number;
}

/** One INSERT. Reads what is there when the statement begins; what it writes appears at its end. */
function runInsert(
  state: SinkState,
  { owner, shard, place, block }: { owner: Process; shard: number; place: Place; block: Block },
  reply: (ms: number, value: undefined | SinkFailure) => void,
): void {
  const { world, options, parts, running, tokens } = state;
  const { time, random } = world;
  const { weakness } = options;
  const name = `${place.generation}/${shard}/${place.block}`;
  if (running.has(name) && weakness.noQueryId !== true) {
    reply(0, new SinkFailure('busy', 'a query of this id is running'));
    return;
  }
  running.add(name);
  for (const tell of state.curious.splice(0)) tell(owner);
  const { life } = state;
  const end = (value: SinkFailure | undefined): void => {
    running.delete(name);
    reply(0, value);
  };
  const present =
    weakness.tokenOnly === true
      ? tokens.has(name)
      : weakness.noProbe !== true && partsOf(parts, shard, place, block.day).length > 0;
  const rows = contentOf(block.messages, options);
  const appear = (part: Part): void => {
    world.trace?.(
      'sink',
      `stores block ${name}, ${part.lo} to ${part.hi}, of ${owner.name}: ${part.rows.length} rows, ` +
        `${part.duplicate} duplicate, ${part.dead} dead`,
    );
    parts.push(part);
    end(undefined);
  };
  const takesMs = world.chance(0.05) ? random() * 15_000 : 2 + random() * 30;
  time.after(takesMs, () => {
    if (life !== state.life) return;
    if (rows instanceof SinkFailure) return end(rows);
    if (world.chance(0.03)) return end(new SinkFailure('large', 'memory limit exceeded'));
    if (present) return end(undefined);
    tokens.add(name);
    const part = partFrom(shard, place, block, rows);
    if (weakness.tokenOnly !== true) return appear(part);
    time.after(1 + random() * 100, () => {
      if (life === state.life) appear(part);
    });
  });
}

const partFrom = (shard: number, { generation, block: number }: Place, block: Block, rows: readonly Row[]): Part => ({
  day: block.day,
  generation,
  shard,
  block: number,
  lo: block.lo,
  hi: block.hi,
  hiAtMs: block.lastTimeMs,
  accepted: block.rows,
  duplicate: block.duplicate,
  dead: block.dead,
  rows,
});

export function createSink(world: World, options: SinkOptions): SimulatedSink {
  const parts: Part[] = [];
  const state: SinkState = {
    ...{ world, options, parts, running: new Set(), tokens: new Set(), curious: [] },
    up: true,
    life: 0,
  };

  const read = <T>(owner: Process, query: () => T): Promise<T> =>
    request(world, state, owner, (reply) => {
      if (world.chance(0.02)) reply(0, new SinkFailure('large', 'memory limit exceeded'));
      else reply(0, query());
    });

  return {
    parts,
    lastBlock: (owner, shard, generation, fromDay) => read(owner, () => lastBlock(parts, shard, generation, fromDay)),

    readBack: (owner, shard, place, day) =>
      read(owner, () => {
        const found = partsOf(parts, shard, place, day);
        if (found.length === 0) return undefined;
        return {
          lo: Math.min(...found.map((part) => part.lo)),
          hi: Math.max(...found.map((part) => part.hi)),
          hiAtMs: Math.max(...found.map((part) => part.hiAtMs)),
        };
      }),

    insert: (owner, shard, place, block) =>
      request<void>(world, state, owner, (reply) => runInsert(state, { owner, shard, place, block }, reply)),

    dryRun: (owner, messages) =>
      request<void>(world, state, owner, (reply) => {
        const rows = contentOf(messages, options);
        if (rows instanceof SinkFailure) reply(5, rows);
        else if (world.chance(0.02)) reply(0, new SinkFailure('large', 'memory limit exceeded'));
        else reply(5, undefined);
      }),

    fingerprints: (owner, batches) => read(owner, () => batches.map((batch) => fingerprintOfIds(idsOf(parts, batch)))),

    eventCounts: (owner, questions) =>
      read(owner, () =>
        questions.map((question) => {
          const wanted = new Set(question.eventIds);
          const counts = new Map<string, number>();
          for (const id of idsOf(parts, question)) if (wanted.has(id)) counts.set(id, (counts.get(id) ?? 0) + 1);
          return counts;
        }),
      ),

    retriedSince: (owner, sinceMs, most) => read(owner, () => retriedIn(parts, sinceMs).slice(0, most)),

    onNextInsert: (run) => void state.curious.push(run),
    restart(ms) {
      if (!state.up) return;
      world.trace?.('sink', `is killed, up again in ${Math.round(ms)} ms`);
      state.up = false;
      state.life++;
      state.running.clear();
      world.time.after(ms, () => {
        state.up = true;
        world.trace?.('sink', 'is up');
      });
    },
  };
}
