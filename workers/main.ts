/**
 * `sluice worker`: loads the log's shards into ClickHouse, each event exactly once. This file wires the parts, starts them in any order,
 * and drains them.
 *
 * The rooms, in the order of a batch's way; each entry file has the map of its room:
 *
 *   reader/        messages of a shard's stream (pull-reader.ts)
 *   loader/        from messages to blocks, exactly once (shard.ts)
 *   clickhouse/    the client, the events table and its statements (client.ts)
 *   ledger/        the commands and answers that look into log and ClickHouse (audit.ts)
 *   embedded/      `sluice clickhouse`, the engine on a laptop (main.ts)
 *
 * Beside this file:
 *
 *   metrics.ts     instruments and spans
 */

import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { type JetStreamManager, jetstreamManager } from '@nats-io/jetstream';
import { type KV, Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/nats-core';
import { installationReplicas } from '../lib/buckets.js';
import { parseArgv, resolveOptions, type WorkerConfig, workerOptions } from '../lib/config/index.js';
import { createDeadLetters } from '../lib/dead-letters.js';
import { UsageError } from '../lib/errors.js';
import { armFailpoint } from '../lib/failpoint.js';
import { createLogger, type Logger } from '../lib/logger.js';
import { connectNats } from '../lib/nats.js';
import { natsAt } from '../lib/nats-login.js';
import { onParentGone } from '../lib/parent-gone.js';
import { followShards } from '../lib/shard-number.js';
import type { ShardSetting } from '../lib/shard-setting.js';
import { committedSubject, settingsBucket } from '../lib/subjects.js';
import { flushTelemetry } from '../lib/telemetry/flush.js';
import type { ClickHouse } from './clickhouse/client.js';
import { knownShards, openClickHouse, patiently } from './clickhouse/connect.js';
import { createTableMender } from './clickhouse/mend-table.js';
import { prepareTable } from './clickhouse/prepare-table.js';
import { dropOldDays } from './clickhouse/retention.js';
import type { TableTarget } from './clickhouse/schema/index.js';
import { checkReceiveTimeout, createStaleStatements } from './clickhouse/stale-statement.js';
import { serveBatchStatus } from './ledger/batch-status.js';
import { createLedgerStore } from './ledger/ledger-store.js';
import { type Assignment, joinWorkers } from './loader/assignment.js';
import { createClickHouseBlockStore } from './loader/block-store.js';
import { createLoaderPool, type LoaderPool } from './loader/pool.js';
import { acceptKey, type ShardLoader, startShardLoader } from './loader/shard.js';
import { serveShardWaits } from './loader/shard-waits.js';
import { createWaitingMetric, createWorkerMetrics } from './metrics.js';
import { createByteBudget } from './reader/budget.js';
import { createBufferPool } from './reader/buffer-pool.js';

/** How long a drain may take: the block in flight, and the one that was gathered. */
const drainMs = 8_000;
/** The worker was asked to end while the events table did not fit. */
const tableExitCode = 3;
const retentionRoundMs = 10 * 60_000;
const firstRetentionMs = 10_000;

/** Where the process stands. Before it runs there is nothing to drain. */
type Life =
  | { readonly phase: 'starting' }
  | { readonly phase: 'running'; readonly drain: () => Promise<void> }
  | { readonly phase: 'ending' };

interface Ending {
  /** Aborted when the process is to end. */
  readonly signal: AbortSignal;
  /** From now on an end begins with this. @returns false: the process ends already */
  drainWith(drain: () => Promise<void>): boolean;
}

/** Ends the process, drained, on signals and when its parent has gone. */
function endOnSignals(logger: Logger, exitCode: () => number): Ending {
  const stop = new AbortController();
  let life: Life = { phase: 'starting' };

  async function end(why: string): Promise<void> {
    if (life.phase === 'ending') return;
    const before = life;
    life = { phase: 'ending' };
    stop.abort();
    logger.info({ why }, 'draining');
    // A clickhouse that gives no answer must not keep the process: what is not stored stays in the log (LOAD-2).
    setTimeout(() => {
      logger.warn('the drain took too long; what is not stored stays in the log');
      process.exit(0);
    }, drainMs + 2_000).unref();
    if (before.phase === 'running') await before.drain();
    await flushTelemetry();
    process.exit(exitCode());
  }
  process.on('SIGTERM', () => void end('SIGTERM'));
  process.on('SIGINT', () => void end('SIGINT'));
  onParentGone(() => void end('the parent process is gone'));

  return {
    signal: stop.signal,
    drainWith(drain) {
      if (life.phase === 'ending') return false;
      life = { phase: 'running', drain };
      return true;
    },
  };
}

/** What the parts of a worker share. */
interface WorkerParts {
  readonly config: WorkerConfig;
  readonly logger: Logger;
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly clickhouse: ClickHouse;
  readonly target: TableTarget;
}

/** The loaders of the shards that this worker is given; none yet. */
function createLoaders({ config, logger, nc, jsm, clickhouse, target }: WorkerParts, settings: KV): LoaderPool {
  const budget = createByteBudget(config.maxBytesHeld);
  const buffers = createBufferPool(config.maxBytesHeld);
  const metrics = createWorkerMetrics({
    bytesHeld: () => budget.used,
    pool: () => clickhouse.stats(),
    circuits: () => clickhouse.circuits(),
  });
  const store = createClickHouseBlockStore(clickhouse, target, {
    stale: createStaleStatements(clickhouse, { logger }),
    mender: createTableMender({ prepare: () => prepareTable(clickhouse, target, logger), logger }),
  });
  const deadLetters = createDeadLetters({ nc, maxBytes: config.deadLetterBytes });
  const start = (shard: number): ShardLoader =>
    startShardLoader({
      nc,
      jsm,
      shard,
      store,
      limits: { rows: config.blockRows, bytes: config.blockBytes, delayMs: config.blockDelay },
      budget,
      buffers,
      deadLetters,
      replayMs: config.replayWindow,
      metrics,
      logger,
      accepted: async (of, generation) => (await settings.get(acceptKey(of)))?.string() === generation,
      onCommitted(of, generation, hi) {
        // A hint for gateways (Committed); who misses one learns from the next.
        if (!nc.isClosed()) nc.publish(committedSubject(of), JSON.stringify({ generation, sequence: hi }));
      },
    });
  return createLoaderPool(start, logger);
}

/** The number of shards, and the epoch in which it holds. */
type ShardNumber = Pick<ShardSetting, 'shards' | 'epoch'>;

/** Follows the number of shards: calls back when it was changed. */
function followNumber(
  { nc, logger }: WorkerParts,
  first: ShardNumber,
  onChange: (now: ShardNumber) => void,
): { readonly current: ShardNumber; end(): void } {
  let current = first;
  let refused: string | undefined;
  const end = followShards(
    nc,
    logger,
    (setting) => {
      refused = undefined;
      if (setting.epoch === current.epoch && setting.shards === current.shards) return;
      const { shards, epoch } = setting;
      logger.info({ from: current.shards, to: shards, epoch }, 'the number of shards was changed');
      current = { shards, epoch };
      onChange(current);
    },
    (reason) => {
      if (reason !== refused)
        logger.error({ reason, shards: current.shards }, 'the number of shards is not to be trusted: keeping the last');
      refused = reason;
    },
  );
  return {
    get current() {
      return current;
    },
    end,
  };
}

/** Drops old days now and then. One worker sees to it; two would do no harm. @returns ends it */
function startRetention(
  { config, clickhouse, target, jsm, logger }: WorkerParts,
  assignment: Assignment,
  shards: () => number,
): () => void {
  async function retain(): Promise<void> {
    if (config.retentionDays === 0 || assignment.view.index !== 0) return;
    const days = config.retentionDays;
    await dropOldDays({ clickhouse, target, jsm, shards: shards(), days, nowMs: Date.now(), logger });
  }
  const round = (): void => {
    retain().catch((error: unknown) => logger.warn({ error: String(error) }, 'retention could not run'));
  };
  const rounds = setInterval(round, retentionRoundMs);
  setTimeout(round, firstRetentionMs).unref();
  return () => clearInterval(rounds);
}

const createWorkerName = (): string =>
  `${hostname().replace(/[^A-Za-z0-9]/g, '-')}-${process.pid}-${randomBytes(3).toString('hex')}`;

async function main(): Promise<void> {
  const config = resolveOptions(workerOptions, parseArgv(process.argv.slice(2), workerOptions));
  armFailpoint(config.failpoint, 'loader');
  const logger = createLogger('worker', config.logLevel);
  const waiting = createWaitingMetric();
  const ending = endOnSignals(logger, () => (waiting.current === 'table' ? tableExitCode : 0));
  const { signal } = ending;

  const nc = await connectNats({ ...natsAt(config), name: 'sluice worker', user: 'worker', logger });
  let loaded: LoaderPool['loaded'] | undefined;
  const waits = serveShardWaits(nc, () => loaded?.() ?? { starting: waiting.reason ?? 'it is starting' });
  const jsm = await jetstreamManager(nc, { checkAPI: false });
  const { clickhouse, target } = await openClickHouse(config, logger, signal, waiting.tell);
  const first = await knownShards(nc, logger, signal, waiting.tell);
  waiting.over();
  const settings = await patiently('the settings', logger, signal, () => new Kvm(nc).open(settingsBucket));
  void checkReceiveTimeout(clickhouse, logger);

  const parts: WorkerParts = { config, logger, nc, jsm, clickhouse, target };
  const pool = createLoaders(parts, settings);
  const worker = createWorkerName();
  const assignment = await patiently('the other workers', logger, signal, async () => {
    const replicas = await installationReplicas(nc);
    return joinWorkers({ nc, worker, ...first, replicas, onChange: (own) => pool.assign(own), logger });
  });
  const number = followNumber(parts, first, ({ shards, epoch }) => {
    pool.restart();
    assignment.resize(shards, epoch);
  });
  const statuses = serveBatchStatus({ nc, jsm, store: createLedgerStore(clickhouse, target), logger });
  loaded = pool.loaded;
  const endRetention = startRetention(parts, assignment, () => number.current.shards);

  const drain = async (): Promise<void> => {
    endRetention();
    number.end();
    // First the shards, then the good-bye: the others take over what is stored already.
    await pool.stop(drainMs);
    await assignment.leave();
    waits.close();
    await statuses.close();
    await clickhouse.close();
    await nc.close();
  };
  // Told to stop while it was starting: there was nothing to drain.
  if (!ending.drainWith(drain)) return;
  logger.info({ worker, shards: number.current.shards }, 'ready');
  process.send?.({ ready: true });
}

main().catch((error: unknown) => {
  process.stderr.write(error instanceof UsageError ? `${error.message}\n` : `${(error as Error).stack ?? error}\n`);
  process.exit(1);
});
