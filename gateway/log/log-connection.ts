/**
 * Whether the log can take batches now: connected, able to carry the largest message, and with a stream for every shard.
 * Checked when the connection comes and again after every reconnect, because it may be to a server with other limits.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import { ensureLog, generationOf } from '../../lib/log-streams.js';
import type { Logger } from '../../lib/logger.js';
import { followShards } from '../../lib/shard-number.js';
import { changeText } from '../../lib/shard-setting.js';
import { createLogWire, type OpenLogWire } from './log-wire.js';

export interface LogConnectionOptions {
  readonly nats: Promise<NatsConnection>;
  readonly config: { readonly shards: number; readonly replicas: number; readonly shardMaxBytes: number };
  readonly logger: Logger;
  /** Bytes that a message must be able to have. */
  readonly minPayload: number;
  /** The checks have passed: publish. The first time, that is over the line that this opens. */
  readonly onConnected: (openWire: OpenLogWire) => void;
  readonly onDisconnected: () => void;
  /** The stream of a shard is there, of this generation. Told before `onConnected`. */
  readonly onStream: (shard: number, generation: string) => void;
}

export interface LogConnection {
  readonly ready: boolean;
  /** Why not ready. */
  readonly reason: string | undefined;
  /** Of the installation; 0 until it was ready for the first time. */
  readonly shards: number;
  /** Of the number of shards: it goes into the subjects (lib/shard-setting.ts). */
  readonly shardEpoch: number;
  /** A stream has gone: not ready until the checks have passed again, which puts it back. */
  recheck(): void;
  /** Stops watching; does not close the connection. */
  close(): void;
}

/** What to do when this user of nats-server may not make what is missing. */
const mayNot = (error: unknown): string =>
  /Permissions Violation for Publish to "\$JS\.API\.STREAM\.(?:CREATE|UPDATE)/i.test(String(error))
    ? '. This user of NATS may not: run `sluice setup` as one who may make streams'
    : '';

const firstRetryMs = 100;
/** A log that is back is used within a second. Gateways that lost it together ask at different times. */
const lastRetryMs = 1_000;

export function watchLog(options: LogConnectionOptions): LogConnection {
  const { config, logger, minPayload, onConnected, onDisconnected, onStream } = options;
  let ready = false;
  let reason: string | undefined = 'NATS is not connected yet';
  let shards = 0;
  let shardEpoch = 1;
  let closed = false;
  // Every disconnect starts a new epoch: a check that began in an older one must not declare readiness.
  let epoch = 0;
  let connection: NatsConnection | undefined;
  let retry: NodeJS.Timeout | undefined;
  let unfollow: (() => void) | undefined;

  const notReady = (why: string): void => {
    if (why !== reason) logger.warn({ reason: why }, 'log not ready');
    reason = why;
  };

  const lose = (why: string): void => {
    epoch++;
    clearTimeout(retry);
    ready = false;
    notReady(why);
    onDisconnected();
  };

  const check = async (nc: NatsConnection, mine: number, delay: number): Promise<void> => {
    const again = (why: string): void => {
      if (closed || mine !== epoch) return;
      notReady(why);
      retry = setTimeout(
        () => void check(nc, mine, Math.min(delay * 2, lastRetryMs)),
        delay * (0.5 + Math.random() / 2),
      );
    };
    // No info: the connection is being made again.
    if (nc.info === undefined) {
      again('NATS is disconnected');
      return;
    }
    const payload = nc.info.max_payload;
    if (payload < minPayload) {
      again(
        `NATS takes messages of at most ${payload} bytes, but ${minPayload} are needed: set max_payload in its configuration to at least that, or lower maxBatchBytes and coalesceBytes`,
      );
      return;
    }
    try {
      const setting = await ensureLog(nc, {
        shards: config.shards,
        replicas: config.replicas,
        maxBytes: config.shardMaxBytes,
        onStream: (shard, info) => {
          if (!closed && mine === epoch) onStream(shard, generationOf(info));
        },
        logger,
      });
      if (closed || mine !== epoch) return;
      ({ shards, epoch: shardEpoch } = setting);
      ready = true;
      reason = undefined;
      logger.info({ shards, server: nc.getServer() }, 'log ready');
      onConnected((onReply) => createLogWire(nc, onReply));
    } catch (error) {
      again(`The log is not set up: ${error instanceof Error ? error.message : String(error)}${mayNot(error)}`);
    }
  };

  const recheck = (why: string): void => {
    if (!ready || connection === undefined) return;
    ready = false;
    notReady(why);
    void check(connection, epoch, firstRetryMs);
  };

  const watch = async (): Promise<void> => {
    const nc = await options.nats;
    connection = nc;
    if (closed) return;
    unfollow = followShards(
      nc,
      logger,
      (setting) => {
        if (setting.changing !== undefined || setting.shards !== shards || setting.epoch !== shardEpoch) {
          recheck(changeText(setting));
        }
      },
      recheck,
    );
    // Taken before the first check, so that no change is missed.
    const statuses = nc.status();
    void check(nc, epoch, firstRetryMs);
    for await (const status of statuses) {
      if (closed) return;
      if (status.type === 'disconnect') lose('NATS is disconnected');
      else if (status.type === 'close') lose('The connection to NATS was closed');
      else if (status.type === 'reconnect') void check(nc, epoch, firstRetryMs);
    }
  };
  watch().catch((error: unknown) => {
    notReady(`NATS cannot be reached: ${error instanceof Error ? error.message : String(error)}`);
  });

  return {
    get ready() {
      return ready;
    },
    get reason() {
      return reason;
    },
    get shards() {
      return shards;
    },
    get shardEpoch() {
      return shardEpoch;
    },
    recheck() {
      recheck('a stream of the log is missing');
    },
    close() {
      closed = true;
      clearTimeout(retry);
      unfollow?.();
    },
  };
}
