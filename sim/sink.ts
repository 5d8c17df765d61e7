/**
 * A simulated ClickHouse, as far as the loader's protocol leans on it: a table of parts that appear whole or not at all, the
 * probe of an insert-if-absent that is read when the statement begins, the refusal of a second running query of one id, and
 * everything that a request can do to its sender: be lost, come late, lose its answer.
 */
import type { Block } from '../workers/loader/block.js';
import { type Fingerprint, fingerprintOfIds } from '../workers/loader/fingerprint.js';
import type { FoundBlock, InsertFailure, Place } from '../workers/loader/loader.js';
import type { EventsOfBatch, Identity } from '../workers/loader/stored-events.js';
import type { Process } from './process.js';
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

/** An error as the worker gets it. */
export class SinkFailure extends Error {
  constructor(
    readonly failure: InsertFailure,
    message: string,
  ) {
    super(message);
  }
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

export interface SimulatedSink {
  readonly parts: readonly Part[];
  lastBlock(
    owner: Process,
    shard: number,
    generation: string,
    fromDay: string | undefined,
  ): Promise<{ block: number; hi: number; hiAtMs: number; others: { generation: string; hi: number }[] }>;
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

const broken = (): SinkFailure => new SinkFailure('transient', 'the connection broke');

/** The worker's own limit for a request. */
const requestTimeoutMs = 10_000;

export function createSink(world: World, options: SinkOptions): SimulatedSink {
  const { time, random } = world;
  const { weakness } = options;
  const parts: Part[] = [];
  const running = new Set<string>();
  const tokens = new Set<string>();
  const curious: ((owner: Process) => void)[] = [];
  let up = true;
  /** Changes with each death: what ran before ends nothing. */
  let life = 0;

  /** What the worker hears is decided apart from what the server does. */
  function request<T>(
    owner: Process,
    serve: (reply: (ms: number, value: T | SinkFailure) => void) => void,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      let over = false;
      const hear = (ms: number, value: T | SinkFailure): void =>
        owner.deliver(ms, () => {
          if (over) return;
          over = true;
          cancel();
          if (value instanceof SinkFailure) reject(value);
          else resolve(value);
        });
      const cancel = owner.schedule(() => {
        if (over) return;
        over = true;
        reject(new SinkFailure('transient', 'no answer in time'));
      }, requestTimeoutMs);
      if (world.chance(0.02)) {
        hear(world.delay(), broken());
        return;
      }
      let arriveMs = world.delay();
      if (world.chance(0.02)) {
        // The connection breaks, and the request arrives all the same, much later.
        hear(world.delay(), broken());
        arriveMs = random() * 20_000;
      }
      time.after(arriveMs, () => {
        if (!up) {
          hear(world.delay(), new SinkFailure('transient', 'connection refused'));
          return;
        }
        serve((ms, value) => hear(ms + world.delay(), world.chance(0.03) ? broken() : value));
      });
    });
  }

  const read = <T>(owner: Process, query: () => T): Promise<T> =>
    request(owner, (reply) => {
      if (world.chance(0.02)) reply(0, new SinkFailure('large', 'memory limit exceeded'));
      else reply(0, query());
    });

  const contentOf = (messages: readonly Uint8Array[]): Row[] | SinkFailure => {
    const rows: Row[] = [];
    try {
      for (const message of messages) {
        for (const batch of storedBatches(message)) {
          for (const eventId of batch.eventIds) {
            if (options.poisonous(eventId)) return new SinkFailure('content', `cannot parse ${eventId}`);
            rows.push({ batch, eventId });
          }
        }
      }
    } catch (error) {
      return new SinkFailure('content', String(error));
    }
    return rows;
  };

  /** The event ids of a batch, each as often as it is there. */
  const idsOf = ({ tenant, batchId }: Identity): string[] =>
    parts.flatMap(({ rows }) =>
      rows.filter(({ batch }) => batch.tenant === tenant && batch.batchId === batchId).map(({ eventId }) => eventId),
    );

  return {
    parts,
    lastBlock: (owner, shard, generation, fromDay) =>
      read(owner, () => {
        const mine = parts.filter((part) => part.shard === shard);
        const max = (of: readonly Part[]): { block: number; hi: number; hiAtMs: number } => {
          const block = Math.max(0, ...of.map((part) => part.block));
          return {
            block,
            hi: Math.max(0, ...of.map((part) => part.hi)),
            hiAtMs: of.find((part) => part.block === block)?.hiAtMs ?? 0,
          };
        };
        const own = mine.filter((part) => part.generation === generation);
        const near = own.filter((part) => fromDay !== undefined && part.day >= fromDay);
        if (near.length > 0) return { ...max(near), others: [] };
        if (own.length > 0) return { ...max(own), others: [] };
        const others = [...new Set(mine.map((part) => part.generation))];
        return {
          block: 0,
          hi: 0,
          hiAtMs: 0,
          others: others.map((of) => ({ generation: of, hi: max(mine.filter((part) => part.generation === of)).hi })),
        };
      }),

    readBack: (owner, shard, place, day) =>
      read(owner, () => {
        const found = parts.filter(
          (part) =>
            part.day === day &&
            part.shard === shard &&
            part.generation === place.generation &&
            part.block === place.block,
        );
        if (found.length === 0) return undefined;
        return {
          lo: Math.min(...found.map((part) => part.lo)),
          hi: Math.max(...found.map((part) => part.hi)),
          hiAtMs: Math.max(...found.map((part) => part.hiAtMs)),
        };
      }),

    insert: (owner, shard, place, block) =>
      request<void>(owner, (reply) => {
        const name = `${place.generation}/${shard}/${place.block}`;
        if (running.has(name) && weakness.noQueryId !== true) {
          reply(0, new SinkFailure('busy', 'a query of this id is running'));
          return;
        }
        running.add(name);
        for (const tell of curious.splice(0)) tell(owner);
        const mine = life;
        const end = (value: SinkFailure | undefined): void => {
          running.delete(name);
          reply(0, value as never);
        };
        // Reads what is there when the statement begins; what it writes appears at its end.
        const present =
          weakness.tokenOnly === true
            ? tokens.has(name)
            : weakness.noProbe !== true &&
              parts.some(
                (part) =>
                  part.day === block.day &&
                  part.shard === shard &&
                  part.generation === place.generation &&
                  part.block === place.block,
              );
        const rows = contentOf(block.messages);
        const takesMs = world.chance(0.05) ? random() * 15_000 : 2 + random() * 30;
        time.after(takesMs, () => {
          if (mine !== life) return;
          if (rows instanceof SinkFailure) return end(rows);
          if (world.chance(0.03)) return end(new SinkFailure('large', 'memory limit exceeded'));
          if (present) return end(undefined);
          tokens.add(name);
          const part: Part = {
            day: block.day,
            generation: place.generation,
            shard,
            block: place.block,
            lo: block.lo,
            hi: block.hi,
            hiAtMs: block.lastTimeMs,
            accepted: block.rows,
            duplicate: block.duplicate,
            dead: block.dead,
            rows,
          };
          const appear = (): void => {
            world.trace?.(
              'sink',
              `stores block ${name}, ${part.lo} to ${part.hi}, of ${owner.name}: ${part.rows.length} rows, ` +
                `${part.duplicate} duplicate, ${part.dead} dead`,
            );
            parts.push(part);
            end(undefined);
          };
          if (weakness.tokenOnly !== true) return appear();
          time.after(1 + random() * 100, () => {
            if (mine === life) appear();
          });
        });
      }),

    dryRun: (owner, messages) =>
      request<void>(owner, (reply) => {
        const rows = contentOf(messages);
        if (rows instanceof SinkFailure) reply(5, rows);
        else if (world.chance(0.02)) reply(0, new SinkFailure('large', 'memory limit exceeded'));
        else reply(5, undefined as never);
      }),

    fingerprints: (owner, batches) => read(owner, () => batches.map((batch) => fingerprintOfIds(idsOf(batch)))),

    eventCounts: (owner, questions) =>
      read(owner, () =>
        questions.map((question) => {
          const wanted = new Set(question.eventIds);
          const counts = new Map<string, number>();
          for (const id of idsOf(question)) if (wanted.has(id)) counts.set(id, (counts.get(id) ?? 0) + 1);
          return counts;
        }),
      ),

    retriedSince: (owner, sinceMs, most) =>
      read(owner, () => {
        const found = new Map<string, Identity>();
        for (const part of parts) {
          for (const { batch } of part.rows) {
            if (batch.attempt === 1 || batch.receivedAtMs < sinceMs) continue;
            found.set(`${batch.tenant}/${batch.batchId}`, { tenant: batch.tenant, batchId: batch.batchId });
          }
        }
        return [...found.values()].slice(0, most);
      }),

    onNextInsert: (run) => void curious.push(run),
    restart(ms) {
      if (!up) return;
      world.trace?.('sink', `is killed, up again in ${Math.round(ms)} ms`);
      up = false;
      life++;
      running.clear();
      time.after(ms, () => {
        up = true;
        world.trace?.('sink', 'is up');
      });
    },
  };
}
