/**
 * A gateway: the real ingest core and the real rules of a stream (gateway/ingest/ingest.ts with all below it, gateway/api/stream-call.ts), on a
 * simulated process, network and log.
 */

import { openStreamCall } from '../gateway/api/stream-call.js';
import type { Answer } from '../gateway/api/stream-outbox.js';
import type { BatchMessage } from '../gateway/api/view.js';
import { createCommitWatch } from '../gateway/ingest/committed.js';
import { createIngestCore, type IngestOptions } from '../gateway/ingest/ingest.js';
import { createStallWatch } from '../gateway/ingest/stall.js';
import { createConnection } from '../gateway/listener/connection.js';
import type { GatewayMetrics } from '../gateway/metrics.js';
import { silentLogger } from '../lib/logger.js';
import { startHedger } from './hedger.js';
import type { SimulatedLog } from './log.js';
import type { Pipe, Receiver, Server } from './network.js';
import { createProcess } from './process.js';
import type { Weakness } from './weakness.js';
import type { World } from './world.js';

/** What a client sends on its stream. */
export type Upward = BatchMessage;
/** What it hears: limits first, then answers. */
export type Downward = { readonly case: 'limits' } | Answer;

export const tenant = 'acme';

/** As the gateway's default. */
const stallMs = 5 * 60_000;
/** Seldom, for it costs a step; before each batch it looks anyway. */
const lookMs = 60_000;

export type GatewayConfig = IngestOptions['config'];

const nothing = (): void => undefined;
const noMetrics: GatewayMetrics = {
  scanned: nothing,
  stored: nothing,
  failed: nothing,
  flushed: nothing,
  sent: nothing,
  published: nothing,
  connectionRefused: nothing,
  connectionEnded: nothing,
  handshakeFailed: nothing,
  observe: nothing,
  hedged: nothing,
};

export interface GatewayNode extends Server<Upward, Downward> {
  /** A worker's word on its way. */
  hint(shard: number, generation: string, sequence: number): void;
  /** Ends in order: tells its streams, answers what is open, and dies. */
  drain(graceMs: number): void;
}

/** @param hedgeMs 0: no message is sent twice */
export function startGateway(
  world: World,
  name: string,
  log: SimulatedLog,
  config: GatewayConfig,
  hedgeMs: number,
  weakness: Weakness,
): GatewayNode {
  const process = createProcess(world, name);
  const { random } = world;
  let ids = 0;
  /** Whether the line to the log is up, over which the workers' hints come too. */
  let lineUp = false;
  const clock = {
    now: process.now,
    wall: process.wall,
    schedule: process.schedule,
    later: (run: () => void) => process.deliver(0, run),
    random,
    makeId: () => `${name}-${++ids}`,
  };

  const stalls = createStallWatch(stallMs, () => world.trace?.(name, 'notices that it stood still'));
  const look = (): void => {
    stalls.look(process.now(), process.wall());
    process.schedule(look, lookMs);
  };
  look();

  const ingest = createIngestCore({
    config,
    metrics: noMetrics,
    logger: silentLogger,
    stalls,
    hedger: hedgeMs === 0 ? undefined : startHedger(process, log, hedgeMs, weakness.hedgesUnmarked !== true),
    clock,
    /** What log-connection.ts does: ready once the streams are there, and again after each loss. */
    watch(events) {
      let ready = false;
      let openWire: Parameters<typeof events.onConnected>[0] | undefined;
      const check = (): void => {
        if (!lineUp || ready || openWire === undefined) return;
        try {
          for (const { shard, generation } of log.ensureStreams()) events.onStream(shard, generation);
        } catch {
          process.schedule(check, 100 + random() * 1_000);
          return;
        }
        ready = true;
        events.onConnected(weakness.wire?.(openWire, world) ?? openWire);
      };
      log.connect(process, {
        onUp(wire) {
          lineUp = true;
          openWire = wire;
          check();
        },
        onDown() {
          lineUp = false;
          ready = false;
          events.onDisconnected();
        },
      });
      return {
        get ready() {
          return ready;
        },
        get reason() {
          return ready ? undefined : 'no line';
        },
        shards: log.shards,
        shardEpoch: 1,
        recheck() {
          if (!ready) return;
          ready = false;
          process.schedule(check, 100);
        },
        close: nothing,
      };
    },
  });

  /** What committed-hints.ts does: a word of a stream that is not the known one makes it look. */
  /** For the mutation: hears the same, and never doubts. */
  const credulous = createCommitWatch(() => undefined);
  const hear = (shard: number, generation: string, sequence: number): void => {
    credulous.seen(shard, generation);
    credulous.hint(shard, generation, sequence);
    if (ingest.commits.hint(shard, generation, sequence)) return;
    process.deliver(world.delay(), () => {
      const stream = lineUp ? log.peek(shard) : undefined;
      if (stream !== undefined) ingest.commits.seen(shard, stream.generation);
    });
  };

  const endings = new Set<ReturnType<typeof createConnection>>();
  let draining = false;

  const accept = (toClient: Pipe<Downward>): Receiver<Upward> => {
    const connection = createConnection(undefined);
    const openedAt = process.now();
    endings.add(connection);
    let flushing = false;
    let ended = false;
    const call = openStreamCall({
      call: {
        caller: { tenant } as never,
        facts: { traceparent: undefined, client: undefined, userAgent: undefined, clientAddress: undefined },
        openedAt,
        resent: false,
        deadlineAt: undefined,
        name: '',
      },
      connection,
      onRevoked: () => nothing,
      maxBytesInFlight: config.maxStreamBytesInFlight,
      maxUncommitted: ingest.limits.maxStreamUncommitted,
      commits: weakness.trustsWatermark === true ? credulous : ingest.commits,
      onFailed: nothing,
      schedule: process.schedule,
      publish: (_, { batch, batchId, attempt, sentAt }) =>
        ingest.publish({ tenant, batch, batchId, attempt, sentAt, openedAt }),
      room: ingest.room,
      wake() {
        if (flushing || ended) return;
        flushing = true;
        process.deliver(0, flush);
      },
      isFull: () => false,
    });
    const close = (): void => {
      if (ended) return;
      ended = true;
      endings.delete(connection);
      call.close();
    };
    const flush = (): void => {
      flushing = false;
      if (ended) return;
      for (let next = call.next(); next !== undefined; next = call.next()) toClient.send(next);
      if (call.end === undefined) return;
      close();
      toClient.end();
    };

    const waiting: Upward[] = [];
    let busy = false;
    let finished = false;
    const pump = async (): Promise<void> => {
      busy = true;
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        if (!(await call.take(next))) break;
      }
      busy = false;
      if (finished) call.finish();
    };

    toClient.send({ case: 'limits' });
    if (draining) connection.end({ reason: 'drain', graceMs: 1_000 });
    return {
      onMessage(message) {
        if (ended || finished) return;
        world.trace?.(name, `reads ${message.batchId} attempt ${message.attempt}`);
        waiting.push(message);
        if (!busy) void pump();
      },
      onEnd(broken) {
        finished = true;
        if (broken) {
          call.abort(new Error('the client is gone'));
          close();
        } else if (!busy) call.finish();
      },
    };
  };

  return {
    process,
    accept,
    hint(shard, generation, sequence) {
      if (lineUp && !world.chance(0.1)) process.deliver(world.delay(), () => hear(shard, generation, sequence));
    },
    drain(graceMs) {
      if (!process.alive || draining) return;
      draining = true;
      world.trace?.(name, 'drains');
      process.deliver(0, () => {
        for (const connection of [...endings]) connection.end({ reason: 'drain', graceMs });
        process.schedule(() => {
          void ingest.drain(graceMs).then(() => process.deliver(0, () => process.kill()));
        }, graceMs);
      });
    },
  };
}
