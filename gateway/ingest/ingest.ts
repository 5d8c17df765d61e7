/**
 * The ingest core: takes encoded batches of a tenant, and answers when the log has them. Knows nothing of RPC.
 *
 *   ingest.ts           this file: the core, put together
 *   accept.ts           takes a batch in: checks, scans and frames it
 *   admission.ts        bytes in flight, bounded in all and per tenant; byte-bounds.ts counts them, settle-rate.ts when refused callers may come back
 *   told-bytes.ts       what the texts of a result take
 *   stored-batch.ts     metadata in front of the client's bytes
 *   pending-batches.ts  batches without an outcome; deadlines.ts callers that stop waiting
 *   batch-messages.ts   batches to messages and outcomes to batches; coalesce.ts group commit: small batches share a message
 *   log-access.ts       the log as the core reaches it
 *   stall.ts            what may have waited in the sockets while the gateway stood still
 *   committed.ts        what ClickHouse has; committed-hints.ts hears it from the workers;
 *                       commit-follower.ts what one stream hears of it
 *   ../log/             messages to JetStream; map in ../log/publisher.ts
 *
 *   INGEST-1  A batch is answered as accepted only after JetStream's ack for the message that holds it.
 *   INGEST-2  Its bytes count as held from admission until its message is settled, also when the caller has given up before. So do the
 *       texts of its result (told-bytes.ts): a batch whose texts find no room is refused.
 *   INGEST-3  No event is decoded: the scanner proves the bytes, and they go on unchanged.
 *   INGEST-4  A batch that was held for longer than `maxHeld` is not published. By then its client has sent it again. Workers remember
 *       for an hour what was sent again (LOAD-5), so the first copy must come long before that.
 *   INGEST-5  Attempt 1 is written as 0, "unknown", when the batch may have waited that long on its way. This is the case after a stall
 *       of this process on an older connection (stall.ts), or when the client's clock says that it was sent longer than `maxHeld` ago.
 *       It is also the case when a gRPC library or a proxy repeats it below its application, which still says 1 (request-facts.ts).
 *   INGEST-6  An acknowledged message whose sequence ClickHouse has already (of a log that lost its end, COMMIT-3) would never be
 *       loaded: its batches are answered as "outcome unknown".
 */
import type { NatsConnection } from '@nats-io/transport-node';
import type { GatewayConfig } from '../../lib/config/index.js';
import { SluiceError } from '../../lib/errors.js';
import type { Logger } from '../../lib/logger.js';
import { createSparseLogger } from '../../lib/sparse-logger.js';
import { type GatewayClock, systemClock } from '../clock.js';
import type { Hedger } from '../log/hedge.js';
import { watchLog } from '../log/log-connection.js';
import type { GatewayMetrics } from '../metrics.js';
import { batchOverheadBytes, createAccept, type IngestInput } from './accept.js';
import { createAdmission } from './admission.js';
import { createBatchMessages } from './batch-messages.js';
import { type CommitTrouble, type CommitWatch, createCommitWatch, maxStreamUncommitted } from './committed.js';
import { createLogAccess, type WatchLog } from './log-access.js';
import { createPendingBatches, type IngestResult } from './pending-batches.js';
import type { StallWatch } from './stall.js';

export type { IngestInput } from './accept.js';
export type { IngestResult } from './pending-batches.js';

export interface Ingest {
  /**
   * Resolves when JetStream has the batch. @throws SluiceError (validation, overloaded, log_full, log_unavailable,
   * outcome_unknown, deadline, draining)
   */
  publish(input: IngestInput): Promise<IngestResult>;
  /**
   * Resolves when `bytes` more of this tenant fit (streams wait here instead of being refused: flow control). They are
   * set aside until the next macrotask: publish at once. Rejects with the signal's reason.
   */
  room(tenant: string, bytes: number, signal: AbortSignal): Promise<void> | undefined;
  /** A batch of this tenant waits for `room`. */
  isFull(tenant: string): boolean;
  /** Able to publish now: NATS connected, shards known, payload limit checked. */
  readonly ready: boolean;
  /** Why not, for /readyz. */
  readonly reason: string | undefined;
  /** How far ClickHouse is, and who wants to know; the workers' words go to it. */
  readonly commits: CommitWatch;
  /** Refuses new work (draining), publishes what is gathered, waits for acks at most graceMs. */
  drain(graceMs: number): Promise<void>;
  /** As clients see it. */
  readonly limits: {
    maxBatchBytes: number;
    maxBatchEvents: number;
    maxStreamBytesInFlight: number;
    maxStreamUncommitted: number;
  };
}

export interface IngestOptions {
  /** The connection, when it comes: the core starts without it, not ready. It stays the caller's to close. */
  readonly nats: Promise<NatsConnection>;
  readonly config: Pick<
    GatewayConfig,
    | 'shards'
    | 'replicas'
    | 'shardMaxBytes'
    | 'maxBatchBytes'
    | 'maxBatchEvents'
    | 'maxBytesInFlight'
    | 'maxTenantBytesInFlight'
    | 'maxStreamBytesInFlight'
    | 'publishWindow'
    | 'publishTimeout'
    | 'coalesceBytes'
    | 'coalesceDelay'
  > &
    Partial<Pick<GatewayConfig, 'maxHeld'>>;
  readonly metrics: GatewayMetrics;
  readonly logger: Logger;
  /** Undefined: there is no watch, and nothing is doubted. */
  readonly stalls?: StallWatch | undefined;
  /** Undefined: no message is sent twice. */
  readonly hedger?: Hedger | undefined;
}

/** @default of `maxHeld`, ms */
const longestHeldMs = 600_000;

/** Starts the core on NATS. It becomes ready by itself, and again after every loss of the connection. */
export function createIngest(options: IngestOptions): Ingest {
  const { nats, config, metrics, logger, stalls, hedger } = options;
  const watch: WatchLog = (events) => watchLog({ nats, config, logger, ...events });
  return createIngestCore({ config, metrics, logger, stalls, hedger, clock: systemClock, watch });
}

export interface IngestCoreOptions extends Omit<IngestOptions, 'nats'> {
  readonly clock: GatewayClock;
  readonly watch: WatchLog;
}

/** The core with its surroundings given to it: time, dice, and what it knows of the log. */
export function createIngestCore(options: IngestCoreOptions): Ingest {
  const { config, metrics, logger, clock, stalls, hedger, watch } = options;
  const { maxBatchBytes, maxBatchEvents, maxHeld: maxHeldMs = longestHeldMs } = config;
  let draining = false;

  const admission = createAdmission({
    maxBytes: config.maxBytesInFlight,
    maxTenantBytes: config.maxTenantBytesInFlight,
    now: clock.now,
    random: clock.random,
    later: clock.later,
  });
  // Everything is settled within a wait for the window and a wait for the ack, so a later deadline cannot pass first.
  const pending = createPendingBatches(clock, admission, 2 * config.publishTimeout + config.coalesceDelay + 1_000);
  const commits = createCommitWatch(reportTo(logger));
  const access = createLogAccess({ config, clock, logger, metrics, hedger, commits, watch });
  const { connection } = access;
  const messages = createBatchMessages({ config, maxHeldMs, clock, metrics, pending, commits, access });
  const accept = createAccept({
    maxBatchBytes,
    maxBatchEvents,
    maxHeldMs,
    clock,
    metrics,
    connection,
    admission,
    pending,
    messages,
    stalls,
  });

  metrics.observe({
    bytesInFlight: () => admission.bytes,
    publishesInFlight: () => access.inFlight,
    publishesQueued: () => access.queued,
    uncommitted: () => commits.uncommitted,
    commits: () => commits.counts,
  });

  return {
    publish(input) {
      try {
        if (draining) throw new SluiceError('draining', 'This gateway is draining.', { retryAfterMs: 0 });
        if (!connection.ready) throw access.unavailable();
        return accept(input);
      } catch (error) {
        return Promise.reject(error);
      }
    },
    commits,
    room: (tenant, bytes, signal) => admission.room(tenant, bytes + batchOverheadBytes, signal),
    isFull: admission.isFull,
    get ready() {
      return connection.ready && !draining;
    },
    get reason() {
      return draining ? 'draining' : connection.reason;
    },
    async drain(graceMs) {
      draining = true;
      messages.flush();
      await pending.idle(graceMs);
      access.close();
    },
    limits: {
      maxBatchBytes,
      maxBatchEvents,
      maxStreamBytesInFlight: config.maxStreamBytesInFlight,
      maxStreamUncommitted,
    },
  };
}

/** Troubles of commits as lines of the program's log. */
function reportTo(logger: Logger): (trouble: CommitTrouble) => void {
  const sparse = createSparseLogger(logger);
  return (trouble) => {
    if (trouble.kind === 'doubt') {
      const { reason, batches } = trouble;
      sparse.warn({ reason, batches }, 'accepted batches are in doubt: their clients send them again');
    } else {
      const { shard, sequence, after } = trouble;
      logger.error({ shard, sequence, after }, 'the log went backwards: it forgot messages that it had acknowledged');
    }
  };
}
