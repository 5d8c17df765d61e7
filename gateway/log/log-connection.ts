/**
 * Whether the log can take batches now: connected, able to carry the largest message, and with a stream for every shard.
 * Checked when the connection comes and again after every reconnect, because it may be to a server with other limits.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import { jittered } from '../../lib/back-off.js';
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

type Phase =
  | { readonly is: 'not_ready'; readonly reason: string }
  | { readonly is: 'ready' }
  | { readonly is: 'closed' };

/** What is wrong with the connection itself. */
function faultOf({ info }: NatsConnection, minPayload: number): string | undefined {
  // No info: the connection is being made again.
  if (info === undefined) return 'NATS is disconnected';
  if (info.max_payload >= minPayload) return undefined;
  return `NATS takes messages of at most ${info.max_payload} bytes, but ${minPayload} are needed: set max_payload in its configuration to at least that, or lower maxBatchBytes and coalesceBytes`;
}

/** Words of the client library that mean: the connection is gone. */
const endings: Readonly<Record<string, string>> = {
  disconnect: 'NATS is disconnected',
  close: 'The connection to NATS was closed',
};

export function watchLog(options: LogConnectionOptions): LogConnection {
  const { config, logger, minPayload, onConnected, onDisconnected, onStream } = options;
  let phase: Phase = { is: 'not_ready', reason: 'NATS is not connected yet' };
  let shards = 0;
  let shardEpoch = 1;
  // A check that began on an older connection must not declare readiness.
  let connectionNumber = 0;
  let connection: NatsConnection | undefined;
  let retry: NodeJS.Timeout | undefined;
  let unfollow: (() => void) | undefined;

  const isClosed = (): boolean => phase.is === 'closed';
  const isCurrent = (mine: number): boolean => !isClosed() && mine === connectionNumber;

  const notReady = (reason: string): void => {
    if (phase.is === 'closed') return;
    if (phase.is === 'ready' || reason !== phase.reason) logger.warn({ reason }, 'log not ready');
    phase = { is: 'not_ready', reason };
  };

  const lose = (why: string): void => {
    connectionNumber++;
    clearTimeout(retry);
    notReady(why);
    onDisconnected();
  };

  const check = async (nc: NatsConnection, mine: number, delay: number): Promise<void> => {
    const fault = faultOf(nc, minPayload) ?? (await setUp(nc, mine));
    if (fault === undefined || !isCurrent(mine)) return;
    notReady(fault);
    const next = Math.min(delay * 2, lastRetryMs);
    retry = setTimeout(() => void check(nc, mine, next), jittered(delay));
  };

  /** Makes the streams that are missing, and declares the log ready. @returns what is wrong */
  const setUp = async (nc: NatsConnection, mine: number): Promise<string | undefined> => {
    try {
      const setting = await ensureLog(nc, {
        ...config,
        maxBytes: config.shardMaxBytes,
        onStream: (shard, info) => {
          if (isCurrent(mine)) onStream(shard, generationOf(info));
        },
        logger,
      });
      if (!isCurrent(mine)) return undefined;
      ({ shards, epoch: shardEpoch } = setting);
      phase = { is: 'ready' };
      logger.info({ shards, server: nc.getServer() }, 'log ready');
      onConnected((onReply) => createLogWire(nc, onReply));
      return undefined;
    } catch (error) {
      return `The log is not set up: ${error instanceof Error ? error.message : String(error)}${mayNot(error)}`;
    }
  };

  const recheck = (why: string): void => {
    if (phase.is !== 'ready' || connection === undefined) return;
    notReady(why);
    void check(connection, connectionNumber, firstRetryMs);
  };

  const watch = async (): Promise<void> => {
    const nc = await options.nats;
    connection = nc;
    if (isClosed()) return;
    unfollow = followShards(
      nc,
      logger,
      (setting) => {
        const same = setting.changing === undefined && setting.shards === shards && setting.epoch === shardEpoch;
        if (!same) recheck(changeText(setting));
      },
      recheck,
    );
    // Taken before the first check, so that no change is missed.
    const statuses = nc.status();
    void check(nc, connectionNumber, firstRetryMs);
    for await (const { type } of statuses) {
      if (isClosed()) return;
      const why = endings[type];
      if (why !== undefined) lose(why);
      else if (type === 'reconnect') void check(nc, connectionNumber, firstRetryMs);
    }
  };
  watch().catch((error: unknown) => {
    notReady(`NATS cannot be reached: ${error instanceof Error ? error.message : String(error)}`);
  });

  return {
    get ready() {
      return phase.is === 'ready';
    },
    get reason() {
      return phase.is === 'not_ready' ? phase.reason : undefined;
    },
    get shards() {
      return shards;
    },
    get shardEpoch() {
      return shardEpoch;
    },
    recheck: () => recheck('a stream of the log is missing'),
    close: () => {
      phase = { is: 'closed' };
      clearTimeout(retry);
      unfollow?.();
    },
  };
}
