/**
 * What one stream has of batches that are accepted and not committed, and what it hears of them. The rules, COMMIT-1 to COMMIT-6, are in committed.ts.
 */
import type { LogPosition } from '#gen/sluice/ingest/v1/ingest_pb.js';

/** Most of all streams of a gateway: some 100 bytes each. */
const maxUncommitted = 131_072;
/** Of these, most of one tenant. */
const maxTenantUncommitted = 32_768;

export type Position = Pick<LogPosition, 'stream' | 'shard' | 'sequence'>;

/** Where the log put a batch, and in which history of the log, as the watch counts them (COMMIT-2). */
export interface HistoricPosition extends Position {
  readonly history?: number | undefined;
}

/** What a stream hears. */
export interface CommitEvents {
  /** ClickHouse has what this stream was answered as accepted, up to this place (COMMIT-6). */
  committed(upTo: { readonly shard: number; readonly place: number }): void;
  /** Accepted, and not known to be in the log any more (COMMIT-2). */
  doubted(batchIds: readonly string[]): void;
}

/** A stream that wants to hear. */
export interface CommitFollower {
  /**
   * Has the acceptance told, with its place (COMMIT-6), and tells nothing of it before (COMMIT-4). Between the ack and that a doubt may
   * have come: then the batch is in doubt (COMMIT-2).
   */
  accepted(batchId: string, position: HistoricPosition, tell: (place: number) => void): void;
  /** Batches accepted and neither committed nor doubted. */
  readonly uncommitted: number;
  /** It has some, and its tenant or the gateway can have no more (COMMIT-5). It hears of it when it has fewer. */
  readonly full: boolean;
  close(): void;
}

/** What is known of a shard. */
export interface ShardCommits {
  generation: string | undefined;
  /** The highest sequence that was acknowledged since the last doubt, and the highest committed one. */
  acked: number;
  committed: number;
  /** Counts the doubts. */
  history: number;
}

/** Batches that are not committed, of all streams (COMMIT-5). */
export class CommitTally {
  readonly counts = { committed: 0, doubted: 0 };
  uncommitted = 0;
  /** Of tenants that have some. */
  readonly #ofTenants = new Map<string, number>();

  isFull(tenant: string): boolean {
    return this.uncommitted >= maxUncommitted || (this.#ofTenants.get(tenant) ?? 0) >= maxTenantUncommitted;
  }

  /** @param more may be negative */
  add(tenant: string, more: number): void {
    this.uncommitted += more;
    const left = (this.#ofTenants.get(tenant) ?? 0) + more;
    if (left > 0) this.#ofTenants.set(tenant, left);
    else this.#ofTenants.delete(tenant);
  }
}

/** Batches of one stream and shard, by sequence. */
interface Waiting {
  sequences: number[];
  batchIds: string[];
  places: number[];
  /** Places: the last that was given, the highest that is committed, the last that was sent as committed. */
  given: number;
  committed: number;
  told: number;
}

/** Adds the batch that has the last place given. */
function add(waiting: Waiting, sequence: number, batchId: string): void {
  const { sequences, batchIds, places } = waiting;
  // Acks come in the order of their sequences, nearly always.
  let index = sequences.length;
  while (index > 0 && (sequences[index - 1] as number) > sequence) index--;
  if (index === sequences.length) {
    sequences.push(sequence);
    batchIds.push(batchId);
    places.push(waiting.given);
  } else {
    sequences.splice(index, 0, sequence);
    batchIds.splice(index, 0, batchId);
    places.splice(index, 0, waiting.given);
  }
}

/** A stream that asked for commits, from `follow` to `close`. */
export class Follower implements CommitFollower {
  readonly #tenant: string;
  readonly #events: CommitEvents;
  readonly #at: (shard: number) => ShardCommits;
  readonly #tally: CommitTally;
  readonly #onClosed: (follower: Follower) => void;
  readonly #waiting = new Map<number, Waiting>();
  #open = true;
  uncommitted = 0;

  constructor(
    tenant: string,
    events: CommitEvents,
    at: (shard: number) => ShardCommits,
    tally: CommitTally,
    onClosed: (follower: Follower) => void,
  ) {
    this.#tenant = tenant;
    this.#events = events;
    this.#at = at;
    this.#tally = tally;
    this.#onClosed = onClosed;
  }

  get full(): boolean {
    return this.uncommitted > 0 && this.#tally.isFull(this.#tenant);
  }

  #of(shard: number): Waiting {
    let waiting = this.#waiting.get(shard);
    if (waiting === undefined) {
      waiting = { sequences: [], batchIds: [], places: [], given: 0, committed: 0, told: 0 };
      this.#waiting.set(shard, waiting);
    }
    return waiting;
  }

  accepted(batchId: string, { shard, sequence, history }: HistoricPosition, tell: (place: number) => void): void {
    if (!this.#open) return;
    const waiting = this.#of(shard);
    waiting.given++;
    tell(waiting.given);
    if (history !== undefined && history !== this.#at(shard).history) {
      this.#tally.counts.doubted++;
      this.#events.doubted([batchId]);
      return;
    }
    add(waiting, Number(sequence), batchId);
    this.#count(1);
    this.advance(shard, this.#at(shard).committed);
  }

  advance(shard: number, upTo: number): void {
    const waiting = this.#waiting.get(shard);
    if (waiting === undefined || !((waiting.sequences[0] ?? Number.POSITIVE_INFINITY) <= upTo)) return;
    const next = waiting.sequences.findIndex((sequence) => sequence > upTo);
    const done = next < 0 ? waiting.sequences.length : next;
    for (let i = 0; i < done; i++) waiting.committed = Math.max(waiting.committed, waiting.places[i] as number);
    waiting.sequences = waiting.sequences.slice(done);
    waiting.batchIds = waiting.batchIds.slice(done);
    waiting.places = waiting.places.slice(done);
    this.#tally.counts.committed += done;
    this.#count(-done);
    this.#tellCommitted(shard, waiting);
  }

  /** COMMIT-6: up to the first place that is not committed. */
  #tellCommitted(shard: number, waiting: Waiting): void {
    let place = waiting.committed;
    for (const open of waiting.places) place = Math.min(place, open - 1);
    if (place <= waiting.told) return;
    waiting.told = place;
    this.#events.committed({ shard, place });
  }

  /** @returns how many */
  doubt(shard: number | undefined): number {
    const batchIds: string[] = [];
    for (const [of, waiting] of this.#waiting) {
      if (shard !== undefined && shard !== of) continue;
      for (const batchId of waiting.batchIds) batchIds.push(batchId);
      waiting.sequences = [];
      waiting.batchIds = [];
      waiting.places = [];
    }
    if (batchIds.length === 0) return 0;
    this.#tally.counts.doubted += batchIds.length;
    this.#count(-batchIds.length);
    this.#events.doubted(batchIds);
    // A batch in doubt may have held back the report of one behind it.
    for (const [of, waiting] of this.#waiting) this.#tellCommitted(of, waiting);
    return batchIds.length;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#onClosed(this);
    this.#count(-this.uncommitted);
    // It may be in the middle of a round of news.
    this.#waiting.clear();
  }

  #count(more: number): void {
    this.uncommitted += more;
    this.#tally.add(this.#tenant, more);
  }
}
