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
import { jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { installationReplicas } from '../lib/buckets.js';
import { parseArgv, resolveOptions, workerOptions } from '../lib/config/index.js';
import { createDeadLetters } from '../lib/dead-letters.js';
import { UsageError } from '../lib/errors.js';
import { armFailpoint } from '../lib/failpoint.js';
import { createLogger } from '../lib/logger.js';
import { connectNats } from '../lib/nats.js';
import { natsAt } from '../lib/nats-login.js';
import { onParentGone } from '../lib/parent-gone.js';
import { followShards } from '../lib/shard-number.js';
import { committedSubject, settingsBucket } from '../lib/subjects.js';
import { flushTelemetry } from '../lib/telemetry/flush.js';
import { knownShards, openClickHouse, patiently } from './clickhouse/connect.js';
import { createTableMender } from './clickhouse/mend-table.js';
import { prepareTable } from './clickhouse/prepare-table.js';
import { dropOldDays } from './clickhouse/retention.js';
import { checkReceiveTimeout, createStaleStatements } from './clickhouse/stale-statement.js';
import { serveBatchStatus } from './ledger/batch-status.js';
import { createLedgerStore } from './ledger/ledger-store.js';
import { type Assignment, joinWorkers } from './loader/assignment.js';
import { createClickHouseBlockStore } from './loader/block-store.js';
import { createLoaderPool, type LoaderPool } from './loader/pool.js';
import { acceptKey, startShardLoader } from './loader/shard.js';
import { serveShardWaits } from './loader/shard-waits.js';
import { createWaitingMetric, createWorkerMetrics } from './metrics.js';
import { createByteBudget } from './reader/budget.js';
import { createBufferPool } from './reader/buffer-pool.js';

/** How long a drain may take: the block in flight, and the one that was gathered. */
const drainMs = 8_000;
/** The worker was asked to end while the events table did not fit. */
const tableExitCode = 3;
const retentionRoundMs = 10 * 60_000;

async function main(): Promise<void> {
  const config = resolveOptions(workerOptions, parseArgv(process.argv.slice(2), workerOptions));
  armFailpoint(config.failpoint, 'loader');
  const logger = createLogger('worker', config.logLevel);
  const stop = new AbortController();
  let ending: (() => Promise<void>) | undefined;
  const waiting = createWaitingMetric();

  async function end(why: string): Promise<void> {
    if (stop.signal.aborted) return;
    stop.abort();
    logger.info({ why }, 'draining');
    // A clickhouse that gives no answer must not keep the process: what is not stored stays in the log (LOAD-2).
    setTimeout(() => {
      logger.warn('the drain took too long; what is not stored stays in the log');
      process.exit(0);
    }, drainMs + 2_000).unref();
    await ending?.();
    await flushTelemetry();
    process.exit(waiting.current === 'table' ? tableExitCode : 0);
  }
  process.on('SIGTERM', () => void end('SIGTERM'));
  process.on('SIGINT', () => void end('SIGINT'));
  onParentGone(() => void end('the parent process is gone'));

  const nc = await connectNats({ ...natsAt(config), name: 'sluice worker', user: 'worker', logger });
  let loaded: LoaderPool['loaded'] | undefined;
  const waits = serveShardWaits(nc, () => loaded?.() ?? { starting: waiting.reason ?? 'it is starting' });
  const jsm = await jetstreamManager(nc, { checkAPI: false });
  const { clickhouse, target } = await openClickHouse(config, logger, stop.signal, waiting.tell);
  let { shards, epoch } = await knownShards(nc, logger, stop.signal, waiting.tell);
  waiting.over();
  const settings = await patiently('the settings', logger, stop.signal, () => new Kvm(nc).open(settingsBucket));
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
  void checkReceiveTimeout(clickhouse, logger);
  const letters = createDeadLetters({ nc, maxBytes: config.deadLetterBytes });

  const pool = createLoaderPool(
    (shard) =>
      startShardLoader({
        nc,
        jsm,
        shard,
        store,
        limits: { rows: config.blockRows, bytes: config.blockBytes, delayMs: config.blockDelay },
        budget,
        buffers,
        deadLetters: letters,
        replayMs: config.replayWindow,
        metrics,
        logger,
        accepted: async (of, generation) => (await settings.get(acceptKey(of)))?.string() === generation,
        onCommitted(of, generation, hi) {
          // A hint for gateways (Committed); who misses one learns from the next.
          if (!nc.isClosed()) nc.publish(committedSubject(of), JSON.stringify({ generation, sequence: hi }));
        },
      }),
    logger,
  );

  const worker = `${hostname().replace(/[^A-Za-z0-9]/g, '-')}-${process.pid}-${randomBytes(3).toString('hex')}`;
  const assignment: Assignment = await patiently('the other workers', logger, stop.signal, async () => {
    const replicas = await installationReplicas(nc);
    return joinWorkers({ nc, worker, shards, epoch, replicas, onChange: (own) => pool.assign(own), logger });
  });

  let refused: string | undefined;
  const unfollow = followShards(
    nc,
    logger,
    (setting) => {
      refused = undefined;
      if (setting.epoch === epoch && setting.shards === shards) return;
      logger.info({ from: shards, to: setting.shards, epoch: setting.epoch }, 'the number of shards was changed');
      ({ shards, epoch } = setting);
      pool.restart();
      assignment.resize(shards, epoch);
    },
    (reason) => {
      if (reason !== refused)
        logger.error({ reason, shards }, 'the number of shards is not to be trusted: keeping the last');
      refused = reason;
    },
  );
  const statuses = serveBatchStatus({ nc, jsm, store: createLedgerStore(clickhouse, target), logger });
  loaded = pool.loaded;

  /** One worker sees to retention; two would do no harm. */
  async function retain(): Promise<void> {
    if (config.retentionDays === 0 || assignment.view.index !== 0) return;
    await dropOldDays({ clickhouse, target, jsm, shards, days: config.retentionDays, nowMs: Date.now(), logger });
  }
  const retaining = setInterval(() => {
    retain().catch((error: unknown) => logger.warn({ error: String(error) }, 'retention could not run'));
  }, retentionRoundMs);
  setTimeout(() => {
    retain().catch((error: unknown) => logger.warn({ error: String(error) }, 'retention could not run'));
  }, 10_000).unref();

  ending = async () => {
    clearInterval(retaining);
    unfollow();
    // First the shards, then the good-bye: the others take over what is stored already.
    await pool.stop(drainMs);
    await assignment.leave();
    waits.close();
    await statuses.close();
    await clickhouse.close();
    await nc.close();
  };
  // Told to stop while it was starting: end() has found nothing to end.
  if (stop.signal.aborted) return;
  logger.info({ worker, shards }, 'ready');
  process.send?.({ ready: true });
}

main().catch((error: unknown) => {
  process.stderr.write(error instanceof UsageError ? `${error.message}\n` : `${(error as Error).stack ?? error}\n`);
  process.exit(1);
});
