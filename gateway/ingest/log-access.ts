/**
 * The core's way to the log: whether it is there, with how many shards, and the publisher once it has been reached.
 */
import type { GatewayConfig } from '../../lib/config/index.js';
import { SluiceError } from '../../lib/errors.js';
import type { Logger } from '../../lib/logger.js';
import type { GatewayClock } from '../clock.js';
import type { Hedger } from '../log/hedge.js';
import type { LogConnection, LogConnectionOptions } from '../log/log-connection.js';
import { createPublisher, type Outgoing, type Publisher } from '../log/publisher.js';
import type { GatewayMetrics } from '../metrics.js';
import type { CommitWatch } from './committed.js';
import { maxMetadataBytes } from './stored-batch.js';

/** Starts to watch the log; see `watchLog` in log-connection.ts. */
export type WatchLog = (
  events: Pick<LogConnectionOptions, 'minPayload' | 'onConnected' | 'onDisconnected' | 'onStream'>,
) => LogConnection;

export interface LogAccessOptions {
  readonly config: Pick<GatewayConfig, 'maxBatchBytes' | 'publishWindow' | 'publishTimeout' | 'coalesceBytes'>;
  readonly clock: GatewayClock;
  readonly logger: Logger;
  readonly metrics: GatewayMetrics;
  readonly hedger: Hedger | undefined;
  readonly commits: CommitWatch;
  readonly watch: WatchLog;
}

export interface LogAccess {
  /** Whether the log can take batches now, why not, and its shards. */
  readonly connection: LogConnection;
  /** Publishes the message, or settles it with an error when the log has never been reached. */
  send(message: Outgoing): void;
  /** What callers get while the log cannot be reached. */
  unavailable(): SluiceError;
  readonly inFlight: number;
  readonly queued: number;
  close(): void;
}

/** When a caller whose batch the log did not take may come back, ms. */
export const retrySoonMs = (random: () => number): number => Math.round(500 + random() * 1_000);

export function createLogAccess(options: LogAccessOptions): LogAccess {
  const { config, clock, commits } = options;
  /** From the first time on that the log was reached. */
  let publisher: Publisher | undefined;
  let knownShards = 0;

  const connection = options.watch({
    // One batch with its metadata, or a group, must fit one message.
    minPayload: Math.max(config.maxBatchBytes + 4 * maxMetadataBytes, config.coalesceBytes),
    onConnected(openWire) {
      // No worker publishes the watermark of a shard that is gone. Its batches are stored, but that is for LOAD-5 to find.
      for (let shard = connection.shards; shard < knownShards; shard++) {
        commits.doubt(`there are ${connection.shards} shards now`, shard);
      }
      knownShards = connection.shards;
      if (publisher !== undefined) {
        publisher.connected();
        return;
      }
      publisher = createPublisher({
        openWire,
        clock,
        logger: options.logger,
        metrics: options.metrics,
        window: config.publishWindow,
        timeoutMs: config.publishTimeout,
        payloadBytes: config.coalesceBytes,
        onNoStream: connection.recheck,
        hedger: options.hedger,
      });
    },
    onDisconnected() {
      commits.doubt('the connection to NATS was lost');
      publisher?.disconnected();
    },
    onStream: commits.seen,
  });

  const unavailable = (): SluiceError =>
    new SluiceError(
      'log_unavailable',
      `The log cannot be reached: ${(connection.reason ?? 'starting').replace(/\.$/, '')}.`,
      { retryAfterMs: retrySoonMs(clock.random) },
    );

  return {
    connection,
    send(message) {
      if (publisher === undefined) message.settle(unavailable());
      else publisher.send(message);
    },
    unavailable,
    get inFlight() {
      return publisher?.inFlight ?? 0;
    },
    get queued() {
      return publisher?.queued ?? 0;
    },
    close() {
      connection.close();
      options.hedger?.close();
      publisher?.close();
    },
  };
}
