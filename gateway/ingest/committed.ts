/**
 * Knows which accepted batches ClickHouse has: the watermarks of the shards, and the streams that asked for them. Pure:
 * committed-hints.ts brings the workers' watermarks, ingest.ts the outcome of messages, publish-stream.ts the streams.
 *
 *   COMMIT-1  A batch is committed when a worker has published a sequence at or above the batch's, for the generation of the shard's
 *       stream that this gateway knows. A lower sequence than before comes from a late worker, and changes nothing.
 *   COMMIT-2  A position names a message only within one history of the log. A log that lost power may have forgotten the end of what
 *       it acknowledged, and gives the same sequences to other messages. A watermark that passes them says nothing about the first
 *       ones. So when this gateway cannot be sure that the log is the one that acknowledged, every accepted and uncommitted batch is in
 *       doubt. Its stream is asked to send it again (the loader leaves out what ClickHouse has, LOAD-5). Causes: the connection to NATS
 *       was lost; a stream was made again; a stream has another leader; the log went backwards (COMMIT-3).
 *   COMMIT-3  A message gets a sequence above each one that was acknowledged or published as committed before it was sent. If it does
 *       not, the log went backwards. At or below the committed sequence it would never be loaded, because ClickHouse has a message of
 *       that sequence. Then it does not count as accepted, whatever the durability (ingest.ts, INGEST-6). Or the stream is another one,
 *       made again by another gateway: so the gateway looks at it.
 *   COMMIT-4  A stream sends a watermark after every acceptance that it covers; it covers none that the stream sends later.
 *   COMMIT-5  Memory is bounded: in batches per stream, per tenant and in all. Beyond a bound the gateway does not read a stream that
 *       has uncommitted batches (STREAM-4), until some of these are committed or in doubt. It reads streams without uncommitted
 *       batches. One tenant cannot take all places.
 *   COMMIT-6  A client hears no sequence of the log, which would show each tenant how much all of them send. Batches that a stream was answered
 *       as accepted are counted from 1 for each shard: that is their place, and a watermark tells the highest place below which
 *       all are committed.
 */
import type { LogPosition } from '#gen/sluice/ingest/v1/ingest_pb.js';

/** Most batches of one stream that are sent and not committed; clients see it in Limits. */
export const maxStreamUncommitted = 8_192;
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
  /** The warehouse has what this stream was answered as accepted, up to this place (COMMIT-6). */
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

/** Something worth a line in the log. */
export type CommitTrouble =
  | { readonly kind: 'doubt'; readonly reason: string; readonly batches: number }
  | { readonly kind: 'backwards'; readonly shard: number; readonly sequence: number; readonly after: number };

export interface CommitWatch {
  /** @param tenant whose stream it is */
  follow(tenant: string, events: CommitEvents): CommitFollower;
  /** The stream of the shard, as it was seen just now. */
  seen(shard: number, generation: string): void;
  /** Of one shard, or of all, it is unknown whether the log still has what it acknowledged (COMMIT-2). */
  doubt(reason: string, shard?: number): void;
  /** A worker's word (COMMIT-1). False: of a generation that is not the one seen last; look at the stream again. */
  hint(shard: number, generation: string, sequence: number): boolean;
  /** The highest sequence that was acknowledged since the last doubt, and the highest committed one; 0: none. */
  lastAcked(shard: number): number;
  lastCommitted(shard: number): number;
  /** Counts the doubts of a shard: what is acknowledged now is of this history. */
  history(shard: number): number;
  /**
   * A message has been acknowledged; the last two are what held when it was sent.
   * @returns false: it will not be loaded (COMMIT-3)
   */
  acked(shard: number, sequence: number, ackedBefore: number, committedBefore: number): boolean;
  /** Called when a log went backwards (COMMIT-3). Perhaps another gateway made its stream again: look, and say what was {@link seen}. */
  onBackwards: (shard: number) => void;
  readonly uncommitted: number;
  /** Batches so far. */
  readonly counts: { readonly committed: number; readonly doubted: number };
}

interface Shard {
  generation: string | undefined;
  acked: number;
  committed: number;
  history: number;
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

export function createCommitWatch(tell: (trouble: CommitTrouble) => void): CommitWatch {
  const shards: Shard[] = [];
  const followers = new Set<Follower>();
  const counts = { committed: 0, doubted: 0 };
  let uncommitted = 0;
  /** Of tenants that have some. */
  const ofTenants = new Map<string, number>();

  const at = (shard: number): Shard => {
    let state = shards[shard];
    if (state === undefined) {
      state = { generation: undefined, acked: 0, committed: 0, history: 0 };
      shards[shard] = state;
    }
    return state;
  };

  class Follower implements CommitFollower {
    readonly #tenant: string;
    readonly #events: CommitEvents;
    readonly #waiting = new Map<number, Waiting>();
    uncommitted = 0;

    constructor(tenant: string, events: CommitEvents) {
      this.#tenant = tenant;
      this.#events = events;
    }

    get full(): boolean {
      if (this.uncommitted === 0) return false;
      return uncommitted >= maxUncommitted || (ofTenants.get(this.#tenant) ?? 0) >= maxTenantUncommitted;
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
      if (!followers.has(this)) return;
      const waiting = this.#of(shard);
      waiting.given++;
      tell(waiting.given);
      if (history !== undefined && history !== at(shard).history) {
        counts.doubted++;
        this.#events.doubted([batchId]);
        return;
      }
      const { sequences, batchIds, places } = waiting;
      const wanted = Number(sequence);
      // Acks come in the order of their sequences, nearly always.
      let index = sequences.length;
      while (index > 0 && (sequences[index - 1] as number) > wanted) index--;
      if (index === sequences.length) {
        sequences.push(wanted);
        batchIds.push(batchId);
        places.push(waiting.given);
      } else {
        sequences.splice(index, 0, wanted);
        batchIds.splice(index, 0, batchId);
        places.splice(index, 0, waiting.given);
      }
      this.#count(1);
      this.advance(shard, at(shard).committed);
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
      counts.committed += done;
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
      counts.doubted += batchIds.length;
      this.#count(-batchIds.length);
      this.#events.doubted(batchIds);
      // A batch in doubt may have held back the report of one behind it.
      for (const [of, waiting] of this.#waiting) this.#tellCommitted(of, waiting);
      return batchIds.length;
    }

    close(): void {
      if (followers.delete(this)) this.#count(-this.uncommitted);
    }

    #count(more: number): void {
      this.uncommitted += more;
      uncommitted += more;
      const left = (ofTenants.get(this.#tenant) ?? 0) + more;
      if (left > 0) ofTenants.set(this.#tenant, left);
      else ofTenants.delete(this.#tenant);
    }
  }

  const doubt = (reason: string, shard?: number): void => {
    for (const state of shard === undefined ? shards : [at(shard)]) {
      if (state === undefined) continue;
      state.acked = 0;
      state.history++;
    }
    let batches = 0;
    // A copy: who hears of it may close.
    for (const follower of [...followers]) batches += follower.doubt(shard);
    if (batches > 0) tell({ kind: 'doubt', reason, batches });
  };

  const watch: CommitWatch = {
    onBackwards: () => {},
    follow(tenant, events) {
      const follower = new Follower(tenant, events);
      followers.add(follower);
      return follower;
    },
    seen(shard, generation) {
      const state = at(shard);
      if (state.generation === generation) return;
      const madeAgain = state.generation !== undefined;
      state.generation = generation;
      state.committed = 0;
      if (madeAgain) doubt(`the stream of shard ${shard} was made again`, shard);
    },
    doubt,
    hint(shard, generation, sequence) {
      const state = at(shard);
      if (state.generation !== generation) return false;
      if (sequence <= state.committed) return true;
      state.committed = sequence;
      for (const follower of [...followers]) follower.advance(shard, sequence);
      return true;
    },
    lastAcked: (shard) => shards[shard]?.acked ?? 0,
    lastCommitted: (shard) => shards[shard]?.committed ?? 0,
    history: (shard) => at(shard).history,
    acked(shard, sequence, ackedBefore, committedBefore) {
      const state = at(shard);
      const after = Math.max(ackedBefore, committedBefore);
      if (sequence <= after) {
        tell({ kind: 'backwards', shard, sequence, after });
        doubt(`the log of shard ${shard} went backwards`, shard);
        watch.onBackwards(shard);
        if (sequence <= committedBefore) return false;
      }
      if (sequence > state.acked) state.acked = sequence;
      return true;
    },
    get uncommitted() {
      return uncommitted;
    },
    counts,
  };
  return watch;
}
