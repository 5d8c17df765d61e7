/**
 * The shards that this worker loads: starts and stops their loaders as the assignment changes. A shard that comes back
 * while its old loader is still storing the last block waits for it.
 */
import type { Logger } from '../../lib/logger.js';
import type { ShardLoader } from './shard.js';
import type { LoadedShard } from './shard-waits.js';

export interface LoaderPool {
  /** From now on exactly these shards. */
  assign(shards: readonly number[]): void;
  /** Ends all loaders and starts them again: what they remember of other shards' batches is read again (LOAD-5, DEDUP-2). */
  restart(): void;
  /** The shards that are loaded now, and why those wait that stand still. */
  loaded(): readonly LoadedShard[];
  /** Stops all; each finishes the block in flight, within the grace. */
  stop(graceMs: number): Promise<void>;
}

/** How long a loader may finish its block when its shard goes to another worker; no haste, by LOAD-2. */
const handOverMs = 10_000;

export function createLoaderPool(start: (shard: number) => ShardLoader, logger: Logger): LoaderPool {
  const running = new Map<number, ShardLoader>();
  const leaving = new Map<number, Promise<void>>();
  let wanted: ReadonlySet<number> = new Set();
  let stopped = false;

  const leave = (shard: number, loader: ShardLoader, graceMs: number): Promise<void> => {
    running.delete(shard);
    const done = loader
      .stop(graceMs)
      .catch((error: unknown) => logger.error({ shard, error: String(error) }, 'a loader ended with an error'))
      .then(() => {
        leaving.delete(shard);
        begin();
      });
    leaving.set(shard, done);
    return done;
  };
  const begin = (): void => {
    if (stopped) return;
    for (const shard of wanted) {
      if (!running.has(shard) && !leaving.has(shard)) running.set(shard, start(shard));
    }
  };
  return {
    assign(shards) {
      wanted = new Set(shards);
      for (const [shard, loader] of running) {
        if (!wanted.has(shard)) void leave(shard, loader, handOverMs);
      }
      begin();
    },
    restart() {
      for (const [shard, loader] of running) void leave(shard, loader, handOverMs);
    },
    loaded: () => [...running].map(([shard, loader]) => ({ shard, wait: loader.wait() })),
    async stop(graceMs) {
      stopped = true;
      for (const [shard, loader] of running) void leave(shard, loader, graceMs);
      await Promise.all(leaving.values());
    },
  };
}
