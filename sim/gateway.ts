/**
 * A gateway: the real ingest core and the real rules of a stream (gateway/ingest/ingest.ts with all below it, gateway/api/stream-call.ts), on a
 * simulated process, network and log.
 */

import { createCommitWatch } from '../gateway/ingest/committed.js';
import { createIngestCore, type Ingest, type IngestCoreOptions, type IngestOptions } from '../gateway/ingest/ingest.js';
import { createStallWatch } from '../gateway/ingest/stall.js';
import { createConnection } from '../gateway/listener/connection.js';
import type { GatewayMetrics } from '../gateway/metrics.js';
import { silentLogger } from '../lib/logger.js';
import { type Downward, serveStream, type Upward } from './gateway-stream.js';
import { startHedger } from './hedger.js';
import type { SimulatedLog } from './log.js';
import type { Server } from './network.js';
import { createProcess, type Process } from './process.js';
import type { Weakness } from './weakness.js';
import type { World } from './world.js';

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

export interface SimulatedGatewayOptions {
  readonly name: string;
  readonly config: GatewayConfig;
  /** 0: no message is sent twice. */
  readonly hedgeMs: number;
  readonly weakness: Weakness;
}

/** What the parts of a gateway share. */
interface GatewayScope extends SimulatedGatewayOptions {
  readonly world: World;
  readonly process: Process;
  readonly log: SimulatedLog;
  /** Whether the line to the log is up, over which the workers' hints come too. */
  readonly line: { up: boolean };
}

type WatchLog = IngestCoreOptions['watch'];
type LogEvents = Parameters<WatchLog>[0];

/** What log-connection.ts does: ready once the streams are there, and again after each loss. */
function watchLog({ world, process, log, weakness, line }: GatewayScope, events: LogEvents): ReturnType<WatchLog> {
  let ready = false;
  let openWire: Parameters<LogEvents['onConnected']>[0] | undefined;
  const check = (): void => {
    if (!line.up || ready || openWire === undefined) return;
    try {
      for (const { shard, generation } of log.ensureStreams()) events.onStream(shard, generation);
    } catch {
      process.after(100 + world.random() * 1_000, check);
      return;
    }
    ready = true;
    events.onConnected(weakness.wire?.(openWire, world) ?? openWire);
  };
  log.connect(process, {
    onUp(wire) {
      line.up = true;
      openWire = wire;
      check();
    },
    onDown() {
      line.up = false;
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
      process.after(100, check);
    },
    close: nothing,
  };
}

function startIngest(scope: GatewayScope): Ingest {
  const { world, process, log, name, config, hedgeMs, weakness } = scope;
  let ids = 0;
  const stalls = createStallWatch(stallMs, () => world.trace?.(name, 'notices that it stood still'));
  const look = (): void => {
    stalls.look(process.now(), process.wall());
    process.after(lookMs, look);
  };
  look();
  return createIngestCore({
    config,
    metrics: noMetrics,
    logger: silentLogger,
    stalls,
    hedger: hedgeMs === 0 ? undefined : startHedger(process, log, hedgeMs, weakness.hedgesUnmarked !== true),
    clock: {
      now: process.now,
      wall: process.wall,
      after: process.after,
      later: (run: () => void) => process.deliver(0, run),
      random: world.random,
      makeId: () => `${name}-${++ids}`,
    },
    watch: (events) => watchLog(scope, events),
  });
}

/** What committed-hints.ts does: a word of a stream that is not the known one makes it look. */
function createHints({ world, process, log, line }: GatewayScope, ingest: Ingest) {
  /** For the mutation: hears the same, and never doubts. */
  const credulous = createCommitWatch(() => undefined);
  return {
    credulous,
    hear(shard: number, generation: string, sequence: number): void {
      credulous.seen(shard, generation);
      credulous.hint(shard, generation, sequence);
      if (ingest.commits.hint(shard, generation, sequence)) return;
      process.deliver(world.delay(), () => {
        const stream = line.up ? log.peek(shard) : undefined;
        if (stream !== undefined) ingest.commits.seen(shard, stream.generation);
      });
    },
  };
}

export function startGateway(world: World, log: SimulatedLog, options: SimulatedGatewayOptions): GatewayNode {
  const { name, config, weakness } = options;
  const process = createProcess(world, name);
  const scope: GatewayScope = { ...options, world, process, log, line: { up: false } };
  const ingest = startIngest(scope);
  const hints = createHints(scope, ingest);
  const commits = weakness.trustsWatermark === true ? hints.credulous : ingest.commits;
  const endings = new Set<ReturnType<typeof createConnection>>();
  let draining = false;

  return {
    process,
    accept(toClient) {
      const connection = createConnection(undefined);
      endings.add(connection);
      const onClosed = (): void => void endings.delete(connection);
      const maxBytesInFlight = config.maxStreamBytesInFlight;
      const receiver = serveStream(
        { world, process, ingest, commits, maxBytesInFlight, connection, onClosed },
        toClient,
      );
      if (draining) connection.end({ reason: 'drain', graceMs: 1_000 });
      return receiver;
    },
    hint(shard, generation, sequence) {
      if (scope.line.up && !world.chance(0.1)) {
        process.deliver(world.delay(), () => hints.hear(shard, generation, sequence));
      }
    },
    drain(graceMs) {
      if (!process.alive || draining) return;
      draining = true;
      world.trace?.(name, 'drains');
      process.deliver(0, () => {
        for (const connection of [...endings]) connection.end({ reason: 'drain', graceMs });
        process.after(graceMs, () => {
          void ingest.drain(graceMs).then(() => process.deliver(0, () => process.kill()));
        });
      });
    },
  };
}
