/**
 * `sluice worker`: loads the log's shards into ClickHouse, each event exactly once.
 *
 *   main.ts            this file: wiring, start in any order, drain
 *   erase-main.ts      `sluice erase`: the command line of erase.ts
 *   end-command.ts     how the commands end
 *   connect.ts         NATS, ClickHouse and table, reached with patience; prepare-table.ts brings the table up to the contract
 *   assignment.ts      which worker loads which shard
 *   pool.ts     the loaders of the shards that are this worker's
 *   loader.ts          the protocol of one shard, pure; LOAD-1 to LOAD-8 stand there
 *   shard.ts    the protocol bound to stream, ClickHouse, clock, metrics
 *   block-store.ts     what the protocol asks of ClickHouse; stale-statement.ts ends an INSERT that keeps a block's name,
 *                      mend-table.ts brings the table up to the contract when a column was dropped
 *   block.ts           which messages make up a block; sort-by-tenant.ts: in which order they are sent
 *   dedup.ts         which batches were sent again, and which of their events are stored already (LOAD-5)
 *   fingerprint.ts     tells whether two copies of a batch hold the same events; stored-events.ts: single events in ClickHouse
 *   dead-letters.ts          what of a block cannot be stored (LOAD-6); rescan.ts is the contract's part of it
 *   frames.ts          the batches inside a message, for these two
 *   pull-reader.ts           reading a stream, ahead, within bounds (budget.ts)
 *   gap.ts         messages that are missing from it; end.ts: whether it lost its end (LOAD-8)
 *   link.ts        requests to JetStream, given up when the connection is
 *   nats-socket.ts            how its messages get here; buffer-pool.ts is the memory that they lie in
 *   trim.ts            what may leave a stream
 *   retention.ts       what may leave ClickHouse by age
 *   erase.ts           what must leave it for a user's sake
 *   audit-main.ts      `sluice audit`: audit.ts the ledger by block, audit-tenant.ts by batch of one tenant; compared-copies.ts
 *                      compares copies with rows, event by event
 *   where-main.ts      `sluice where`: where.ts finds an event or a batch, copy-fates.ts what became of each copy's events
 *                      both: ledger-store.ts what ClickHouse says, log-scan.ts and dead-scan.ts what the streams hold
 *                      (stored-frames.ts its batches), progress-line.ts how far they are
 *   shards-main.ts     `sluice shards`: shards.ts changes their number, shard-states.ts shows them, shard-mend.ts saves what a
 *                      stream holds that may not be loaded, shards-rebuild.ts writes a lost number again,
 *                      shard-waits.ts asks workers why shards wait
 *   standstill.ts      whether a shard moves; block-size.ts how large its blocks are
 *   batch-status.ts    answers gateways that ask what became of a batch
 *   metrics.ts         instruments and spans
 *   client.ts       the client of ClickHouse; errors.ts sorts its errors, circuit.ts spares it when it is in trouble
 *   schema/            table, migrations and INSERT from the descriptors
 *   embedded/          `sluice clickhouse`, the engine on a laptop
 */

import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { installationReplicas } from '../lib/buckets.js';
import { parseArgv, resolveOptions, workerOptions } from '../lib/config/index.js';
import { deadLetters } from '../lib/dead-letters.js';
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
import { tableMender } from './clickhouse/mend-table.js';
import { prepareTable } from './clickhouse/prepare-table.js';
import { dropOldDays } from './clickhouse/retention.js';
import { checkReceiveTimeout, staleStatements } from './clickhouse/stale-statement.js';
import { serveBatchStatus } from './ledger/batch-status.js';
import { ledgerStore } from './ledger/ledger-store.js';
import { type Assignment, joinWorkers } from './loader/assignment.js';
import { clickhouseBlockStore } from './loader/block-store.js';
import { type LoaderPool, loaderPool } from './loader/pool.js';
import { acceptKey, startShardLoader } from './loader/shard.js';
import { serveShardWaits } from './loader/shard-waits.js';
import { waitingMetric, workerMetrics } from './metrics.js';
import { byteBudget } from './reader/budget.js';
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
  const waiting = waitingMetric();

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
  const budget = byteBudget(config.maxBytesHeld);
  const buffers = createBufferPool(config.maxBytesHeld);
  const metrics = workerMetrics({
    bytesHeld: () => budget.used,
    pool: () => clickhouse.stats(),
    circuits: () => clickhouse.circuits(),
  });
  const store = clickhouseBlockStore(clickhouse, target, {
    stale: staleStatements(clickhouse, { logger }),
    mender: tableMender({ prepare: () => prepareTable(clickhouse, target, logger), logger }),
  });
  void checkReceiveTimeout(clickhouse, logger);
  const letters = deadLetters({ nc, maxBytes: config.deadLetterBytes });

  const pool = loaderPool(
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
  const statuses = serveBatchStatus({ nc, jsm, store: ledgerStore(clickhouse, target), logger });
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
