/**
 * Which accepted batches the warehouse has: the watermarks of the shards, and the streams that want to hear of them. Pure;
 * committed-hints.ts brings the workers' words, ingest.ts what becomes of messages, publish-stream.ts the streams.
 *
 *   W1  A batch is committed when a worker has told, of the shard's stream as this gateway knows it (its generation), a
 *       sequence at or above the batch's. A lower one than before is news from a worker that is late: it changes nothing.
 *   W2  A position names a message only within one history of the log. A log that lost power may have forgotten the end of
 *       what it acknowledged, and gives the same sequences to other messages; a watermark that passes them says nothing
 *       of the first ones. So whenever this gateway cannot be sure that the log is the one that acknowledged, every batch
 *       that is accepted and not committed is in doubt, and its stream is told to send it again (the loader leaves out
 *       what it has already, L5). That is: the connection to NATS was lost; a stream was made anew; a stream has
 *       another leader; the log went backwards (W3).
 *   W3  A message gets a sequence above each that was acknowledged, or told as committed, before it was sent. If it does
 *       not, the log went backwards. At or below the committed one it would never be loaded, for the warehouse has a
 *       message of that sequence: then it does not count as accepted, whatever the durability (ingest.ts, I6). Or the stream is
 *       another one, made anew by another gateway: so it is looked at.
 *   W4  A watermark is told on a stream after every acceptance that it covers, and covers none that is told after it.
 *   W5  Memory is bounded: in batches per stream, past which the stream is not read (P1), and in all, past which a stream
 *       that has some is answered "overloaded".
 */
import type { LogPosition } from '#gen/sluice/ingest/v1/ingest_pb.js';

/** Most batches of one stream that are sent and not committed; clients are told (Limits). */
export const maxStreamUncommitted = 8_192;
/** Most of all streams of a gateway: some 100 bytes each. */
const maxUncommitted = 262_144;

export type Position = Pick<LogPosition, 'stream' | 'shard' | 'sequence'>;

/** Where the log put a batch, and in which history of the log, as the watch counts them (W2). */
export interface HistoricPosition extends Position {
  readonly history?: number | undefined;
}

/** What a stream hears. */
export interface CommitEvents {
  /** The warehouse has what this stream was answered as accepted, up to here. */
  committed(upTo: Position): void;
  /** Accepted, and not known to be in the log any more (W2). */
  doubted(batchIds: readonly string[]): void;
}

/** A stream that wants to hear. */
export interface CommitFollower {
  /**
   * To be called when the acceptance is told, and before anything else is (W4). Between the ack and that a doubt may have come: then
   * the batch is in doubt (W2).
   */
  accepted(batchId: string, position: HistoricPosition): void;
  /** Batches accepted and neither committed nor doubted. */
  readonly uncommitted: number;
  close(): void;
}

/** Something worth a line in the log. */
export type CommitTrouble =
  | { readonly kind: 'doubt'; readonly reason: string; readonly batches: number }
  | { readonly kind: 'backwards'; readonly shard: number; readonly sequence: number; readonly after: number };

export interface CommitWatch {
  follow(events: CommitEvents): CommitFollower;
  /** The stream of the shard, as it was seen just now. */
  seen(shard: number, generation: string): void;
  /** Of one shard, or of all, nobody knows whether the log still has what it acknowledged (W2). */
  doubt(reason: string, shard?: number): void;
  /** A worker's word (W1). False: of a generation that is not the one seen last; look at the stream again. */
  hint(shard: number, generation: string, sequence: number): boolean;
  /** The highest sequence that was acknowledged since the last doubt, and the highest committed one; 0: none. */
  lastAcked(shard: number): number;
  lastCommitted(shard: number): number;
  /** Counts the doubts of a shard: what is acknowledged now is of this history. */
  history(shard: number): number;
  /**
   * A message has been acknowledged; the last two are what held when it was sent.
   * @returns false: it will not be loaded (W3)
   */
  acked(shard: number, sequence: number, ackedBefore: number, committedBefore: number): boolean;
  /** Told when a log went backwards (W3). Perhaps its stream was made anew by somebody else: look, and say what was {@link seen}. */
  onBackwards: (shard: number) => void;
  /** There is no room for more in all (W5). */
  readonly full: boolean;
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
  stream: string;
  sequences: number[];
  batchIds: string[];
}

export function createCommitWatch(tell: (trouble: CommitTrouble) => void): CommitWatch {
  const shards: Shard[] = [];
  const followers = new Set<Follower>();
  const counts = { committed: 0, doubted: 0 };
  let uncommitted = 0;

  const at = (shard: number): Shard => {
    let state = shards[shard];
    if (state === undefined) {
      state = { generation: undefined, acked: 0, committed: 0, history: 0 };
      shards[shard] = state;
    }
    return state;
  };

  class Follower implements CommitFollower {
    readonly #events: CommitEvents;
    readonly #waiting = new Map<number, Waiting>();
    uncommitted = 0;

    constructor(events: CommitEvents) {
      this.#events = events;
    }

    accepted(batchId: string, { stream, shard, sequence, history }: HistoricPosition): void {
      if (!followers.has(this)) return;
      if (history !== undefined && history !== at(shard).history) {
        counts.doubted++;
        this.#events.doubted([batchId]);
        return;
      }
      let waiting = this.#waiting.get(shard);
      if (waiting === undefined) {
        waiting = { stream, sequences: [], batchIds: [] };
        this.#waiting.set(shard, waiting);
      }
      const { sequences, batchIds } = waiting;
      const wanted = Number(sequence);
      // Acks come in the order of their sequences, nearly always.
      let place = sequences.length;
      while (place > 0 && (sequences[place - 1] as number) > wanted) place--;
      if (place === sequences.length) {
        sequences.push(wanted);
        batchIds.push(batchId);
      } else {
        sequences.splice(place, 0, wanted);
        batchIds.splice(place, 0, batchId);
      }
      this.uncommitted++;
      uncommitted++;
      this.advance(shard, at(shard).committed);
    }

    advance(shard: number, upTo: number): void {
      const waiting = this.#waiting.get(shard);
      if (waiting === undefined || !((waiting.sequences[0] ?? Number.POSITIVE_INFINITY) <= upTo)) return;
      const next = waiting.sequences.findIndex((sequence) => sequence > upTo);
      const done = next < 0 ? waiting.sequences.length : next;
      waiting.sequences = waiting.sequences.slice(done);
      waiting.batchIds = waiting.batchIds.slice(done);
      counts.committed += done;
      this.#leave(done);
      this.#events.committed({ stream: waiting.stream, shard, sequence: BigInt(upTo) });
    }

    /** @returns how many */
    doubt(shard: number | undefined): number {
      const batchIds: string[] = [];
      for (const [of, waiting] of this.#waiting) {
        if (shard !== undefined && shard !== of) continue;
        for (const batchId of waiting.batchIds) batchIds.push(batchId);
        this.#waiting.delete(of);
      }
      if (batchIds.length === 0) return 0;
      counts.doubted += batchIds.length;
      this.#leave(batchIds.length);
      this.#events.doubted(batchIds);
      return batchIds.length;
    }

    close(): void {
      if (followers.delete(this)) this.#leave(this.uncommitted);
    }

    #leave(batches: number): void {
      this.uncommitted -= batches;
      uncommitted -= batches;
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
    follow(events) {
      const follower = new Follower(events);
      followers.add(follower);
      return follower;
    },
    seen(shard, generation) {
      const state = at(shard);
      if (state.generation === generation) return;
      const anew = state.generation !== undefined;
      state.generation = generation;
      state.committed = 0;
      if (anew) doubt(`the stream of shard ${shard} was made anew`, shard);
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
    get full() {
      return uncommitted >= maxUncommitted;
    },
    get uncommitted() {
      return uncommitted;
    },
    counts,
  };
  return watch;
}
