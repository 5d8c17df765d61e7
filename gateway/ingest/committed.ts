/**
 * Knows which accepted batches ClickHouse has: the watermarks of the shards, and the streams that asked for them. Pure:
 * committed-hints.ts brings the workers' watermarks, batch-messages.ts the outcome of messages, stream-call.ts the streams. What one stream has
 * and hears is in commit-follower.ts.
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
import { type CommitEvents, type CommitFollower, CommitTally, Follower, type ShardCommits } from './commit-follower.js';

export type { CommitEvents, CommitFollower, HistoricPosition, Position } from './commit-follower.js';

/** Most batches of one stream that are sent and not committed; clients see it in Limits. */
export const maxStreamUncommitted = 8_192;

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

export function createCommitWatch(tell: (trouble: CommitTrouble) => void): CommitWatch {
  const shards: ShardCommits[] = [];
  const followers = new Set<Follower>();
  const tally = new CommitTally();

  const at = (shard: number): ShardCommits => {
    let state = shards[shard];
    if (state === undefined) {
      state = { generation: undefined, acked: 0, committed: 0, history: 0 };
      shards[shard] = state;
    }
    return state;
  };

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
      const follower = new Follower(tenant, events, at, tally, (closed) => followers.delete(closed));
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
      return tally.uncommitted;
    },
    counts: tally.counts,
  };
  return watch;
}
