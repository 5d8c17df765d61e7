/** What loading shards reports to the metrics. */
import type { DeadKind } from '../../lib/dead-letters.js';
import type { Block } from './block.js';
import type { InsertFailure, Place } from './loader.js';

export interface LoaderMetrics {
  /** An INSERT was answered without error. */
  inserted(shard: number, seconds: number): void;
  insertFailed(shard: number, failure: InsertFailure): void;
  /** ClickHouse has the block. `startedAt`: performance.now() when its last INSERT began. */
  settled(shard: number, block: Block, mine: boolean, place: Place, startedAt: number): void;
  recovered(shard: number): void;
  gap(shard: number, messages: number): void;
  trimmed(shard: number): void;
  /** A batch, or a message that is none, went to the dead letters (LOAD-6). */
  dead(shard: number, kind: DeadKind, events: number): void;
  /** Alarm: the dead letters cannot be written, and the shard waits for that. */
  lettersBlocked(shard: number, blocked: boolean): void;
  /** Alarm: the shard is not loaded until an operator acts. */
  stopped(shard: number, stopped: boolean): void;
  /** Alarm: ClickHouse refuses the shard's block for its content or the worker's settings. */
  stuck(shard: number, stuck: boolean): void;
  /** Alarm: the shard has messages, and stores nothing. */
  standing(shard: number, standing: boolean): void;
  /** An INSERT failed with this number of ClickHouse's, and its block is stored all the same. */
  storedAnyway(shard: number, code: number): void;
  measured(shard: number, state: { readonly depth: number; readonly lagMs: number }): void;
  /** The shard is no longer this worker's. */
  left(shard: number): void;
}
