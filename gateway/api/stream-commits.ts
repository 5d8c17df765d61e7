/**
 * The part of a PublishStream call that waits for commits (STREAM-4 in stream-call.ts). Most calls ask for none, and pay nothing.
 */
import type { GatewayClock } from '../clock.js';
import type { CommitEvents, CommitFollower, CommitWatch, Position } from '../ingest/committed.js';
import type { IngestResult } from '../ingest/ingest.js';

/** How long a stream whose client is done stays open for commits, ms. */
const patienceMs = 60_000;
/** Of a drain's grace, how much passes before a stream ends without its commits. */
const drainPatience = 0.9;

export interface StreamCommitOptions {
  readonly tenant: string;
  readonly commits: Pick<CommitWatch, 'follow'>;
  /** Most batches not committed. */
  readonly maxUncommitted: number;
  readonly after: GatewayClock['after'];
  /** The call waits for commits no longer. */
  readonly onImpatient: () => void;
}

export class StreamCommits {
  readonly #options: StreamCommitOptions;
  #follower: CommitFollower | undefined;
  #patient = true;
  #cancelPatience: (() => void) | undefined;

  constructor(options: StreamCommitOptions) {
    this.#options = options;
  }

  /** The client asks for durability COMMITTED. */
  follow(events: CommitEvents): void {
    this.#follower = this.#options.commits.follow(this.#options.tenant, events);
  }

  /** Has the result told, with the place that the client may know in place of the position (COMMIT-6). */
  accepted(result: IngestResult, tell: (result: IngestResult) => void): void {
    const { batchId, position } = result;
    if (position === undefined || this.#follower === undefined) tell(result);
    else this.#follower.accepted(batchId, position, (place) => tell({ ...result, position: placeOf(position, place) }));
  }

  /** @param publishing batches without an outcome */
  mustWait(publishing: number): boolean {
    const follower = this.#follower;
    if (follower === undefined) return false;
    return follower.full || follower.uncommitted + publishing >= this.#options.maxUncommitted;
  }

  /** The client is done. */
  finish(): void {
    if (this.#follower !== undefined) this.#cancelPatience ??= this.#endPatienceIn(patienceMs);
  }

  drain(graceMs: number): void {
    this.#cancelPatience?.();
    this.#cancelPatience = this.#endPatienceIn(graceMs * drainPatience);
  }

  /** The call stays open for commits. */
  get keepOpen(): boolean {
    return this.#patient && this.#follower !== undefined && this.#follower.uncommitted > 0;
  }

  close(): void {
    this.#cancelPatience?.();
    this.#follower?.close();
  }

  #endPatienceIn(ms: number): () => void {
    return this.#options.after(ms, () => {
      this.#patient = false;
      this.#options.onImpatient();
    });
  }
}

/** What the client gets in place of the log's own position (COMMIT-6). */
const placeOf = ({ shard }: Position, place: number): Position => ({ stream: '', shard, sequence: BigInt(place) });
