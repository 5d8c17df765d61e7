/** Bounds the statements under way: each has a place, which is a connection of the pool, or waits for one. */
import type { ClickHouseClientConfig } from '../../lib/config/index.js';
import { StatementError, sorted } from './errors.js';

/** Figures of the pool, for metrics. */
export interface PoolStats extends Record<string, number> {
  /** Most connections. */
  size: number;
  /** Statements under way. */
  active: number;
  /** Statements that wait for a connection. */
  waiting: number;
  /** Seconds waited by all statements so far. */
  waited_seconds: number;
  /** Statements that gave up waiting. */
  wait_timeouts: number;
  /** As set: how long a statement may wait, how long an idle connection is kept, whether answers are compressed (1). */
  wait_limit_seconds: number;
  keep_alive_seconds: number;
  compression: number;
}

export interface Places {
  /** Runs a statement when a place is free, first come, first served. @throws StatementError, also when it has waited too long */
  run<T>(work: () => Promise<T>): Promise<T>;
  stats(): PoolStats;
}

export function createPlaces(config: ClickHouseClientConfig): Places {
  const stats: PoolStats = {
    size: config.clickhousePoolSize,
    active: 0,
    waiting: 0,
    waited_seconds: 0,
    wait_timeouts: 0,
    wait_limit_seconds: config.clickhousePoolWait / 1000,
    keep_alive_seconds: config.clickhouseKeepAlive / 1000,
    compression: config.clickhouseCompression ? 1 : 0,
  };
  const queue: (() => void)[] = [];

  /** Resolves when a statement before hands over its place. */
  const turn = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const go = (): void => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => {
        queue.splice(queue.indexOf(go), 1);
        stats.wait_timeouts++;
        const message = 'no connection to ClickHouse became free; see --clickhouse-pool-size';
        reject(new StatementError('transient', message, undefined, undefined, true));
      }, config.clickhousePoolWait);
      queue.push(go);
    });

  async function place(): Promise<void> {
    if (stats.active < stats.size) {
      stats.active++;
      return;
    }
    const since = performance.now();
    stats.waiting++;
    try {
      await turn();
    } finally {
      stats.waiting--;
      stats.waited_seconds += (performance.now() - since) / 1000;
    }
  }

  return {
    async run(work) {
      await place();
      try {
        return await work();
      } catch (error) {
        throw sorted(error);
      } finally {
        // The place goes to the next in line, or becomes free.
        const next = queue.shift();
        if (next === undefined) stats.active--;
        else next();
      }
    },
    stats: () => ({ ...stats }),
  };
}
