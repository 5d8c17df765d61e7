/**
 * The ingest core: takes encoded batches of a tenant, and answers when the log has them. Knows nothing of RPC.
 *
 *   admission.ts        bytes in flight, bounded in all and per tenant
 *   stored-batch.ts     metadata in front of the client's bytes
 *   coalesce.ts         group commit: small batches share a message
 *   deadlines.ts        callers that stop waiting
 *   stall.ts            what may have waited in the sockets while the gateway stood still
 *   committed.ts        what ClickHouse has; committed-hints.ts hears it from the workers
 *   ../log/             messages to JetStream; map in ../log/publisher.ts
 *
 *   INGEST-1  A batch is answered as accepted only after JetStream's ack for the message that holds it.
 *   INGEST-2  Its bytes count as held from admission until its message is settled, also when the caller has given up before.
 *   INGEST-3  No event is decoded: the scanner proves the bytes, and they go on unchanged.
 *   INGEST-4  A batch that was held for longer than `maxHeld` is not published. By then its client has sent it again. Workers remember
 *       for an hour what was sent again (LOAD-5), so the first copy must come long before that.
 *   INGEST-5  Attempt 1 is written as 0, "unknown", when the batch may have waited that long on its way. This is the case after a stall
 *       of this process on an older connection (stall.ts), or when the client's clock says that it was sent longer than `maxHeld` ago.
 *       It is also the case when a gRPC library or a proxy repeats it below its application, which still says 1 (request-facts.ts).
 *   INGEST-6  An acknowledged message whose sequence the warehouse has already (of a log that lost its end, COMMIT-3) would never be
 *       loaded: its batches are answered as "outcome unknown".
 */
import type { NatsConnection } from '@nats-io/transport-node';
import { batchIdPattern } from '../../lib/batch-status.js';
import type { GatewayConfig } from '../../lib/config/index.js';
import {
  contractRevision,
  type ReadFindings,
  type Rejection,
  scanAfterReading,
  scanBatch,
} from '../../lib/contract/index.js';
import { shardOf } from '../../lib/contract/shard.js';
import { SluiceError } from '../../lib/errors.js';
import type { Logger } from '../../lib/logger.js';
import { createSparseLogger } from '../../lib/sparse-logger.js';
import { batchSubject } from '../../lib/subjects.js';
import { type GatewayClock, systemClock } from '../clock.js';
import type { Hedger } from '../log/hedge.js';
import { type LogConnection, type LogConnectionOptions, watchLog } from '../log/log-connection.js';
import { createPublisher, type Outgoing, type Publisher, type Stored } from '../log/publisher.js';
import type { GatewayMetrics } from '../metrics.js';
import { createAdmission } from './admission.js';
import { createCoalescer, type Group } from './coalesce.js';
import { type CommitWatch, createCommitWatch, type HistoricPosition, maxStreamUncommitted } from './committed.js';
import { createDeadlines } from './deadlines.js';
import type { StallWatch } from './stall.js';
import { type FramedBatch, frameBatch, maxMetadataBytes } from './stored-batch.js';

export interface IngestInput {
  readonly tenant: string;
  /** Encoded EventBatch. Not copied until it is sent, so it must not change before the promise settles. */
  readonly batch: Uint8Array;
  /** What was found while the batch was read from JSON; undefined: nothing. */
  readonly findings?: ReadFindings | undefined;
  /** Empty: the core mints one. */
  readonly batchId: string;
  /** 0 = unknown. */
  readonly attempt: number;
  readonly sentAt?: { seconds: bigint; nanos: number } | undefined;
  /** When its connection was opened, on the monotonic clock, ms; undefined: before all else. */
  readonly openedAt?: number | undefined;
  /** Something below the application has sent it before. @default false */
  readonly resent?: boolean | undefined;
  /** On the clock of Date.now(), ms. Noticed up to 20 ms late. */
  readonly deadlineAt?: number | undefined;
  readonly traceparent?: string | undefined;
  /** Name and version of the client library: "sluice-node/0.1.0". */
  readonly client?: string | undefined;
  /** 4 or 16 bytes. */
  readonly clientAddress?: Uint8Array | undefined;
  readonly userAgent?: string | undefined;
}

export interface IngestResult {
  readonly batchId: string;
  readonly accepted: number;
  readonly rejected: number;
  readonly rejections: readonly Rejection[];
  /** Undefined when nothing was accepted. */
  readonly position: HistoricPosition | undefined;
  /** Fields that the contract does not know and that were left out, as the request asked. */
  readonly ignoredFields?: readonly string[];
}

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
  /** How far the warehouse is, and who wants to know; the workers' words go to it. */
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

/** What a held batch costs beyond its bytes, so that a flood of tiny batches is bounded too. */
const batchOverheadBytes = 512;
/** From this size on a batch has a message of its own: joining it with others would save nothing. */
const largeBatchBytes = 32 * 1024;
/** After "full", a shard is tried again this much later: a refused message costs as much traffic as a stored one. */
const fullPauseMs = 200;
const deadlineTickMs = 10;
/** The last second of 2199. */
const lastSentAt = 7_258_118_399n;
/** @default of `maxHeld`, ms */
const longestHeldMs = 600_000;

/** A batch between admission and its message's outcome. */
interface Pending {
  readonly tenant: string;
  readonly shard: number;
  readonly cost: number;
  /** Since when it is held: monotonic ms, and ms since 1970. */
  readonly heldSince: number;
  readonly receivedAt: number;
  /** Becomes the answer: the position is filled in when it is known. */
  readonly result: { -readonly [K in keyof IngestResult]: IngestResult[K] };
  /** Undefined once it is in a message, or given up before. */
  framed: FramedBatch | undefined;
  answered: boolean;
  readonly resolve: (result: IngestResult) => void;
  readonly reject: (error: SluiceError) => void;
  deadlineBucket: number | undefined;
}

/** Whether the warehouse can store the time; it would read any other one as 1970. */
const isStorable = ({ seconds, nanos }: { seconds: bigint; nanos: number }): boolean =>
  seconds >= 0n && seconds <= lastSentAt && nanos >= 0 && nanos < 1e9;

/** Starts the core on NATS. It becomes ready by itself, and again after every loss of the connection. */
export function createIngest(options: IngestOptions): Ingest {
  const { nats, config, metrics, logger, stalls, hedger } = options;
  const watch: WatchLog = (events) => watchLog({ nats, config, logger, ...events });
  return createIngestCore({ config, metrics, logger, stalls, hedger, clock: systemClock, watch });
}

/** Starts to look after the log; see {@link watchLog}. */
export type WatchLog = (
  events: Pick<LogConnectionOptions, 'minPayload' | 'onConnected' | 'onDisconnected' | 'onStream'>,
) => LogConnection;

export interface IngestCoreOptions extends Omit<IngestOptions, 'nats'> {
  readonly clock: GatewayClock;
  readonly watch: WatchLog;
}

/** The core with its surroundings given to it: time, dice, and what it knows of the log. */
export function createIngestCore(options: IngestCoreOptions): Ingest {
  const { config, metrics, logger, clock, stalls } = options;
  const { now, wall, schedule, random } = clock;
  const { maxBatchBytes, maxBatchEvents, maxHeld = longestHeldMs } = config;
  const scanLimits = { maxEvents: maxBatchEvents };
  let draining = false;
  let publisher: Publisher | undefined;
  let pending = 0;
  let onIdle: (() => void) | undefined;
  /** Per shard: not before this time (monotonic ms). */
  const fullUntil: number[] = [];

  const admission = createAdmission({
    maxBytes: config.maxBytesInFlight,
    maxTenantBytes: config.maxTenantBytesInFlight,
    now,
    random,
    later: clock.later,
  });

  const deadlines = createDeadlines<Pending>({
    tickMs: deadlineTickMs,
    now: wall,
    schedule,
    expired: (batch) => {
      batch.deadlineBucket = undefined;
      const sent = batch.framed === undefined;
      // What was not sent is not sent any more: the caller would not hear of it.
      batch.framed = undefined;
      answer(
        batch,
        new SluiceError(
          'deadline',
          sent ? 'The log did not acknowledge the batch in time.' : 'The batch was not sent to the log in time.',
          { outcomeUnknown: sent, retryAfterMs: 0 },
        ),
      );
    },
  });
  // Everything is settled within a wait for the window and a wait for the ack, so a later deadline cannot pass first.
  const longestWait = 2 * config.publishTimeout + config.coalesceDelay + 1_000;

  const sparse = createSparseLogger(logger);
  const commits = createCommitWatch((trouble) => {
    if (trouble.kind === 'doubt') {
      const { reason, batches } = trouble;
      sparse.warn({ reason, batches }, 'accepted batches are in doubt: their clients send them again');
    } else {
      const { shard, sequence, after } = trouble;
      logger.error({ shard, sequence, after }, 'the log went backwards: it forgot messages that it had acknowledged');
    }
  });

  const coalescer = createCoalescer<Pending>({
    maxBytes: config.coalesceBytes,
    largeBytes: Math.min(largeBatchBytes, config.coalesceBytes),
    maxDelay: config.coalesceDelay,
    now,
    schedule,
    emit: (group, reason) => {
      metrics.flushed(reason);
      const shard = group.items[0]?.shard ?? 0;
      let ackedBefore = 0;
      let committedBefore = 0;
      const message: Outgoing = {
        subject: group.key,
        encode(allocate) {
          ackedBefore = commits.lastAcked(shard);
          committedBefore = commits.lastCommitted(shard);
          return encode(group, allocate);
        },
        settle(outcome) {
          const sound =
            outcome instanceof SluiceError ||
            commits.acked(shard, Number(outcome.sequence), ackedBefore, committedBefore);
          settle(group, sound ? outcome : forgotten());
        },
      };
      if (publisher === undefined) message.settle(unavailable());
      else publisher.send(message);
    },
  });

  let knownShards = 0;
  const connection = options.watch({
    // One batch with its metadata, or a group, must fit one message.
    minPayload: Math.max(maxBatchBytes + 4 * maxMetadataBytes, config.coalesceBytes),
    onConnected: (openWire) => {
      // No worker publishes the watermark of a shard that is gone. Its batches are stored, but that is for LOAD-5 to find.
      for (let shard = connection.shards; shard < knownShards; shard++) {
        commits.doubt(`there are ${connection.shards} shards now`, shard);
      }
      knownShards = connection.shards;
      if (publisher === undefined) {
        publisher = createPublisher({
          openWire,
          clock,
          logger,
          metrics,
          window: config.publishWindow,
          timeoutMs: config.publishTimeout,
          payloadBytes: config.coalesceBytes,
          onNoStream: connection.recheck,
          hedger: options.hedger,
        });
      } else {
        publisher.connected();
      }
    },
    onDisconnected: () => {
      commits.doubt('the connection to NATS was lost');
      publisher?.disconnected();
    },
    onStream: commits.seen,
  });

  const unavailable = (): SluiceError =>
    new SluiceError(
      'log_unavailable',
      `The log cannot be reached: ${(connection.reason ?? 'starting').replace(/\.$/, '')}.`,
      {
        retryAfterMs: Math.round(500 + random() * 1_000),
      },
    );

  const forgotten = (): SluiceError =>
    new SluiceError('outcome_unknown', 'The log lost its end, and put the batch where it will not be loaded.', {
      outcomeUnknown: true,
      retryAfterMs: Math.round(500 + random() * 1_000),
    });

  /** INGEST-4. */
  const heldTooLong = (): SluiceError =>
    new SluiceError('log_unavailable', 'The gateway held the batch for too long, and did not send it to the log.', {
      retryAfterMs: Math.round(500 + random() * 1_000),
    });

  /** Joins the batches of a group into one message. The one copy that this core makes. */
  const encode = (group: Group<Pending>, allocate: (size: number) => Buffer): Buffer | undefined => {
    group.sealed = true;
    let size = 0;
    const from = now() - maxHeld;
    const fromWall = wall() - maxHeld;
    for (const batch of group.items) {
      if (batch.heldSince < from || batch.receivedAt < fromWall) answer(batch, heldTooLong());
      size += batch.framed?.size ?? 0;
    }
    if (size === 0) return undefined;
    const payload = allocate(size);
    let at = 0;
    for (const batch of group.items) {
      if (batch.framed === undefined) continue;
      at = batch.framed.write(payload, at);
      // Lets go of the caller's bytes.
      batch.framed = undefined;
    }
    return payload;
  };

  const answer = (batch: Pending, outcome: IngestResult['position'] | SluiceError): void => {
    if (batch.answered) return;
    batch.answered = true;
    batch.framed = undefined;
    if (batch.deadlineBucket !== undefined) deadlines.remove(batch, batch.deadlineBucket);
    if (outcome instanceof SluiceError) {
      batch.reject(outcome);
    } else {
      batch.result.position = outcome;
      batch.resolve(batch.result);
    }
  };

  const settle = (group: Group<Pending>, outcome: Stored | SluiceError): void => {
    group.sealed = true;
    const shard = group.items[0]?.shard ?? 0;
    const told = outcome instanceof SluiceError ? outcome : { ...outcome, shard, history: commits.history(shard) };
    if (outcome instanceof SluiceError && outcome.code === 'log_full') fullUntil[shard] = now() + fullPauseMs;
    for (const batch of group.items) {
      if (!(outcome instanceof SluiceError) && !batch.answered) metrics.stored(batch.result.accepted);
      answer(batch, told);
      pending--;
      admission.release(batch.tenant, batch.cost);
    }
    coalescer.settled(group);
    if (pending === 0) onIdle?.();
  };

  const accept = (input: IngestInput): Promise<IngestResult> => {
    const { tenant, batch } = input;
    if (draining) throw new SluiceError('draining', 'This gateway is draining.', { retryAfterMs: 0 });
    if (!connection.ready) throw unavailable();
    if (batch.length > maxBatchBytes) {
      throw new SluiceError('batch_too_large', `The batch has ${batch.length} bytes; the most is ${maxBatchBytes}.`);
    }
    if (input.batchId !== '' && !batchIdPattern.test(input.batchId)) {
      throw new SluiceError('batch_id_invalid', 'The batch_id is longer than 64 bytes or has other characters.');
    }
    const heldSince = now();
    const receivedAt = wall();
    const { deadlineAt, sentAt } = input;
    if (sentAt !== undefined && !isStorable(sentAt)) {
      throw new SluiceError('sent_at_invalid', 'sent_at is before 1970 or after 2199.', { field: 'sent_at' });
    }
    if (deadlineAt !== undefined && deadlineAt <= receivedAt) {
      throw new SluiceError('deadline', 'The deadline had passed when the batch came.', { retryAfterMs: 0 });
    }
    const cost = batch.length + batchOverheadBytes;
    admission.take(tenant, cost);
    // Whatever goes wrong before the coalescer has the batch gives its room back (INGEST-2).
    let handedOver = false;
    try {
      const { findings } = input;
      const scan =
        findings === undefined ? scanBatch(batch, scanLimits) : scanAfterReading(batch, scanLimits, findings);
      metrics.scanned(scan.accepted, scan.rejected, scan.rejections);
      // An id that is made here is on no other copy, so its batch is no suspect of the loader's (LOAD-5), whatever the caller says.
      const [batchId, said] = input.batchId === '' ? [clock.makeId(), 1] : [input.batchId, input.attempt];
      // INGEST-5
      const doubted =
        input.resent === true ||
        stalls?.doubts(input.openedAt ?? Number.NEGATIVE_INFINITY, heldSince, receivedAt) === true ||
        (sentAt !== undefined && Number(sentAt.seconds) * 1_000 < receivedAt - maxHeld);
      const attempt = said === 1 && doubted && input.batchId !== '' ? 0 : said;
      const { accepted, rejected, rejections } = scan;
      const result: Pending['result'] = { batchId, accepted, rejected, rejections, position: undefined };
      if (findings !== undefined && findings.ignoredFields.length > 0) result.ignoredFields = findings.ignoredFields;
      if (accepted === 0) {
        metrics.stored(0);
        return Promise.resolve(result);
      }
      const shard = shardOf(tenant, batchId, connection.shards);
      const pause = fullUntil[shard] === undefined ? 0 : fullUntil[shard] - heldSince;
      if (pause > 0) {
        throw new SluiceError('log_full', 'The log is full.', {
          retryAfterMs: Math.round((pause + 500) * (0.5 + random())),
        });
      }
      const framed = frameBatch({
        tenant,
        batchId,
        attempt,
        receivedAt,
        sentAt,
        eventCount: accepted,
        rejectedCount: rejected,
        unknownFields: scan.unknownFields,
        contract: contractRevision,
        traceparent: input.traceparent,
        client: input.client,
        clientAddress: input.clientAddress,
        userAgent: input.userAgent,
        events: scan.bytes,
      });
      handedOver = true;
      return new Promise((resolve, reject) => {
        const held: Pending = {
          tenant,
          shard,
          cost,
          heldSince,
          receivedAt,
          result,
          framed,
          answered: false,
          resolve,
          reject,
          deadlineBucket: undefined,
        };
        if (deadlineAt !== undefined && deadlineAt - receivedAt < longestWait) {
          held.deadlineBucket = deadlines.add(held, deadlineAt);
        }
        pending++;
        coalescer.add(batchSubject(shard, tenant, connection.shardEpoch), held, framed.size);
      });
    } finally {
      if (!handedOver) admission.release(tenant, cost);
    }
  };

  metrics.observe({
    bytesInFlight: () => admission.bytes,
    publishesInFlight: () => publisher?.inFlight ?? 0,
    publishesQueued: () => publisher?.queued ?? 0,
    uncommitted: () => commits.uncommitted,
    commits: () => commits.counts,
  });

  return {
    publish(input) {
      try {
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
      coalescer.flush();
      if (pending > 0) {
        await new Promise<void>((resolve) => {
          const cancel = schedule(resolve, graceMs);
          onIdle = () => {
            cancel();
            resolve();
          };
        });
      }
      connection.close();
      options.hedger?.close();
      publisher?.close();
    },
    limits: {
      maxBatchBytes,
      maxBatchEvents,
      maxStreamBytesInFlight: config.maxStreamBytesInFlight,
      maxStreamUncommitted,
    },
  };
}
