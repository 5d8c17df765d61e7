/** What a shard's loader is given, and what its parts share. */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import type { DeadLetters } from '../../lib/dead-letters.js';
import type { Logger } from '../../lib/logger.js';
import type { ByteBudget } from '../reader/budget.js';
import type { BufferPool } from '../reader/buffer-pool.js';
import type { Ask } from '../reader/link.js';
import type { PullReader } from '../reader/pull-reader.js';
import type { BlockLimits } from './block.js';
import type { BlockStore } from './block-store.js';
import type { LoaderMetrics } from './loader-metrics.js';
import type { ShardLife } from './shard-life.js';
import type { Standstill, Wait } from './standstill.js';

export interface ShardLoaderOptions {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly shard: number;
  readonly store: BlockStore;
  readonly limits: BlockLimits;
  readonly budget: ByteBudget;
  readonly buffers: BufferPool;
  readonly deadLetters: DeadLetters;
  /** How long loaded messages stay in the stream, ms. */
  readonly replayMs: number;
  readonly metrics: LoaderMetrics;
  readonly logger: Logger;
  /** Whether an operator has accepted this generation of the stream, which replaced another one (settings bucket). */
  readonly accepted: (shard: number, generation: string) => Promise<boolean>;
  /**
   * Everything up to `hi` is committed. Called with each block, and again every second, as long as the log is known to be the
   * one that was loaded. Not called between a break (pull-reader.ts) and the next recovery: the log may have lost its end, and
   * may give the same sequences to other messages.
   */
  readonly onCommitted?: ((shard: number, generation: string, hi: number) => void) | undefined;
  /** How often the loader looks at the stream, to measure and to trim, ms. @default 2000 */
  readonly roundMs?: number;
  /** How long a shard that must not be loaded waits before it looks again, ms. @default 15000 */
  readonly stoppedMs?: number;
  /** How often the loader repeats what is committed, ms. @default 1000 */
  readonly hintMs?: number;
  /** After this long without a stored block, a shard that has messages raises an alarm, ms. @default 20 s and a block's delay */
  readonly standstillMs?: number;
}

export interface ShardLoader {
  /**
   * Takes no new block, stores what is gathered, and ends.
   * @param graceMs after this long even the block in flight is left; another worker loads it (LOAD-2)
   */
  stop(graceMs: number): Promise<void>;
  /** Why the shard stands still; undefined while it moves. */
  wait(): Wait | undefined;
}

/** What the parts of one shard's loader share. `logger` names the shard. */
export interface ShardContext extends ShardLoaderOptions {
  readonly stream: string;
  readonly ask: Ask;
  readonly reader: PullReader;
  readonly life: ShardLife;
  readonly still: Standstill;
}
