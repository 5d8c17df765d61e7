/**
 * The gateway's instruments, all of them. Made in one function, because instruments that are made before the SDK starts
 * stay silent forever (docs/facts.md, FACT-10).
 *
 * Counters are plain numbers that are read at each collection: adding to an OpenTelemetry counter hashes its
 * attributes each time, which would cost small batches more than their validation does.
 */
import { type Meter, metrics, type ObservableResult } from '@opentelemetry/api';
import { type Rejection, RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { ErrorName } from '../lib/errors.js';

// Values of labels.

/** Why a message went to the log. */
export type FlushReason = 'idle' | 'size' | 'delay' | 'large' | 'drain';
/** Why a newcomer was not taken. */
export type RefusedConnection = 'address_full' | 'address_rate' | 'full';
/** Why the gateway ended a connection that was neither old nor drained. */
export type EndedConnection =
  | 'idle'
  | 'unused'
  | 'made_room'
  | 'resets'
  | 'refusals'
  | 'useless_bytes'
  | 'flood'
  | 'address_in_debt'
  | 'pipelining';
/**
 * - `no_certificate`: the client has to show a certificate, and has none
 * - `bad_certificate`: its certificate is not one that the client CA signed, or is not valid now
 * - `handshake`: all else: no TLS, a version or protocol that is not spoken here, a peer that left or was slow
 */
export type TlsRefusal = 'no_certificate' | 'bad_certificate' | 'handshake';

/** What can be looked at, at any time. The part that knows a state reports it. */
export interface GatewayGauges {
  /** Bytes held until the log has them. */
  readonly bytesInFlight: () => number;
  /** Bytes of requests that are not whole, and of answers that are not read. */
  readonly unfinishedBytes: () => number;
  /** Publishes to JetStream that have no answer yet. */
  readonly publishesInFlight: () => number;
  /** Messages that wait for the publish window. */
  readonly publishesQueued: () => number;
  readonly keyCache: () => { hits: number; misses: number };
  readonly openStreams: () => number;
  /** From TCP's accept on. */
  readonly connections: () => number;
  /** Times that the gateway stood still. */
  readonly stalls: () => number;
  /** Times that garbage was collected early (early-collection.ts). */
  readonly earlyCollections: () => number;
  /** Batches of streams of durability COMMITTED: accepted and not committed; and so far, what became of them. */
  readonly uncommitted: () => number;
  readonly commits: () => { readonly committed: number; readonly doubted: number };
  /** When the TLS certificate in use expires, ms since 1970; and how changes of its files ended. */
  readonly certificateExpiresAtMs: () => number;
  readonly tlsReloads: () => { readonly loaded: number; readonly refused: number };
}

/** How a publish to JetStream ended; `late` is an ack that came after its batch was given up. */
export type PublishEnd = 'stored' | 'full' | 'refused' | 'timeout' | 'disconnected' | 'unsent' | 'late';

export interface GatewayMetrics {
  /** A batch was scanned: of its `events`, so many are valid. `rejections` may be fewer than those rejected. */
  scanned(accepted: number, rejected: number, rejections: readonly Pick<Rejection, 'code'>[]): void;
  /** A batch is durable (or had nothing to store). */
  stored(events: number): void;
  /** A batch ended with an error. The code that answers calls this once per error that leaves the gateway. */
  failed(name: ErrorName): void;
  flushed(reason: FlushReason): void;
  /** A message went to JetStream. */
  sent(bytes: number): void;
  published(end: PublishEnd, ms: number): void;
  /** What became of a second copy (hedge.ts); `held_back`: none was sent, to spare the log. */
  hedged(result: 'sent' | 'won' | 'late' | 'refused' | 'held_back'): void;
  /** A newcomer was not taken. */
  connectionRefused(why: RefusedConnection): void;
  /** The gateway ended a connection that was neither old nor drained. */
  connectionEnded(why: EndedConnection): void;
  /** A client got no TLS connection. */
  handshakeFailed(reason: TlsRefusal): void;
  /** Adds gauges; those not given stay as they are. */
  observe(gauges: Partial<GatewayGauges>): void;
}

type Counts = Map<string, number>;

const increase = (counts: Counts, name: string, by = 1): void => {
  counts.set(name, (counts.get(name) ?? 0) + by);
};

export function createGatewayMetrics(): GatewayMetrics {
  const meter = metrics.getMeter('sluice');
  const counts = makeCounters(meter);
  const histograms = makeHistograms(meter);
  let gauges: Partial<GatewayGauges> = {};
  makeReadCounters(meter, () => gauges);
  makeGauges(meter, () => gauges);

  return {
    scanned(accepted, rejectedCount, rejections) {
      histograms.batchEvents.record(accepted + rejectedCount);
      if (rejectedCount === 0) return;
      increase(counts.events, 'rejected', rejectedCount);
      for (const { code } of rejections) increase(counts.rejected, RejectionCode[code] ?? 'UNSPECIFIED');
      // Only the first hundred are told apart.
      if (rejectedCount > rejections.length) increase(counts.rejected, 'NOT_LISTED', rejectedCount - rejections.length);
    },
    stored(count) {
      increase(counts.batches, count === 0 ? 'nothing_valid' : 'stored');
      if (count > 0) increase(counts.events, 'accepted', count);
    },
    failed(name) {
      increase(counts.errors, name);
    },
    flushed(reason) {
      increase(counts.flushes, reason);
    },
    sent(bytes) {
      histograms.payloadBytes.record(bytes);
    },
    published(end, ms) {
      increase(counts.publishes, end);
      if (end === 'stored') histograms.publishMs.record(ms);
    },
    hedged(result) {
      increase(counts.hedges, result);
    },
    connectionRefused(why) {
      increase(counts.refused, why);
    },
    connectionEnded(why) {
      increase(counts.ended, why);
    },
    handshakeFailed(reason) {
      increase(counts.handshakes, reason);
    },
    observe(more) {
      gauges = { ...gauges, ...more };
    },
  };
}

/** A counter with one attribute. */
function counter(meter: Meter, name: string, description: string, attribute: string): Counts {
  const counts: Counts = new Map();
  meter.createObservableCounter(name, { description }).addCallback((result) => {
    for (const [value, count] of counts) result.observe(count, { [attribute]: value });
  });
  return counts;
}

const makeCounters = (meter: Meter) => ({
  events: counter(meter, 'sluice_gateway_events_total', 'Events by what became of them.', 'result'),
  batches: counter(
    meter,
    'sluice_gateway_batches_total',
    'Batches that the log has, or that had no valid event.',
    'result',
  ),
  rejected: counter(meter, 'sluice_gateway_rejected_events_total', 'Invalid events by reason.', 'reason'),
  errors: counter(meter, 'sluice_gateway_errors_total', 'Errors told to callers, by name.', 'error'),
  flushes: counter(meter, 'sluice_gateway_flushes_total', 'Log messages by what made them leave.', 'reason'),
  publishes: counter(meter, 'sluice_gateway_publishes_total', 'Publishes to JetStream by how they ended.', 'end'),
  hedges: counter(
    meter,
    'sluice_gateway_hedges_total',
    'Second copies of slow messages, by what became of them.',
    'result',
  ),
  refused: counter(
    meter,
    'sluice_gateway_connections_refused_total',
    'Connections that were not taken, by the limit that they met.',
    'reason',
  ),
  ended: counter(
    meter,
    'sluice_gateway_connections_ended_total',
    'Connections that the gateway ended before their age, by why.',
    'reason',
  ),
  handshakes: counter(
    meter,
    'sluice_gateway_tls_handshakes_failed_total',
    'TLS handshakes that failed, by what was wrong.',
    'reason',
  ),
});

const makeHistograms = (meter: Meter) => ({
  batchEvents: meter.createHistogram('sluice_gateway_batch_events', {
    description: 'Events of a batch.',
    advice: { explicitBucketBoundaries: [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000] },
  }),
  payloadBytes: meter.createHistogram('sluice_gateway_payload_bytes', {
    description: 'Bytes of a message to JetStream.',
    unit: 'By',
    advice: {
      explicitBucketBoundaries: [256, 1_024, 4_096, 16_384, 32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576],
    },
  }),
  publishMs: meter.createHistogram('sluice_gateway_publish_ms', {
    description: "From a publish to JetStream's ack.",
    unit: 'ms',
    advice: { explicitBucketBoundaries: [0.5, 1, 2, 4, 8, 16, 32, 64, 125, 250, 500, 1_000, 2_500, 5_000] },
  }),
});

/** Counters that other parts keep. */
function makeReadCounters(meter: Meter, gauges: () => Partial<GatewayGauges>): void {
  const counter = (name: string, description: string, read: (result: ObservableResult) => void): void => {
    meter.createObservableCounter(name, { description }).addCallback(read);
  };
  counter('sluice_gateway_key_cache_total', 'Look-ups of keys by whether the cache knew them.', (result) => {
    const stats = gauges().keyCache?.();
    if (stats === undefined) return;
    result.observe(stats.hits, { result: 'hit' });
    result.observe(stats.misses, { result: 'miss' });
  });
  counter(
    'sluice_gateway_commits_total',
    'Batches of streams that want to hear of ClickHouse: committed, or in doubt and to be sent again.',
    (result) => {
      const counts = gauges().commits?.();
      if (counts === undefined) return;
      result.observe(counts.committed, { result: 'committed' });
      result.observe(counts.doubted, { result: 'doubted' });
    },
  );
  counter('sluice_gateway_stalls_total', 'Times that the gateway stood still for longer than stallAfter.', (result) => {
    const stalls = gauges().stalls?.();
    if (stalls !== undefined) result.observe(stalls);
  });
  counter(
    'sluice_gateway_early_collections_total',
    'Times that garbage was collected before V8 would have, because memory was short.',
    (result) => {
      const collections = gauges().earlyCollections?.();
      if (collections !== undefined) result.observe(collections);
    },
  );
  counter(
    'sluice_gateway_tls_reloads_total',
    'Changes of the TLS files: loaded, or refused because they do not fit.',
    (result) => {
      const counts = gauges().tlsReloads?.();
      if (counts === undefined) return;
      result.observe(counts.loaded, { result: 'loaded' });
      result.observe(counts.refused, { result: 'refused' });
    },
  );
}

function makeGauges(meter: Meter, gauges: () => Partial<GatewayGauges>): void {
  const gauge = (name: string, description: string, read: () => number | undefined): void => {
    meter.createObservableGauge(name, { description }).addCallback((result) => {
      const value = read();
      if (value !== undefined) result.observe(value);
    });
  };
  gauge('sluice_gateway_tls_certificate_expiry_seconds', 'Time until the TLS certificate in use expires.', () => {
    const at = gauges().certificateExpiresAtMs?.();
    return at === undefined ? undefined : Math.round((at - Date.now()) / 1_000);
  });
  gauge('sluice_gateway_in_flight_bytes', 'Bytes held until the log has them.', () => gauges().bytesInFlight?.());
  gauge('sluice_gateway_unfinished_bytes', 'Bytes of requests that are not whole, and of unread answers.', () =>
    gauges().unfinishedBytes?.(),
  );
  gauge('sluice_gateway_publishes_in_flight', 'Used part of the publish window.', () => gauges().publishesInFlight?.());
  gauge('sluice_gateway_publishes_queued', 'Messages waiting for the publish window.', () =>
    gauges().publishesQueued?.(),
  );
  gauge('sluice_gateway_connections', 'Open connections.', () => gauges().connections?.());
  gauge('sluice_gateway_open_streams', 'Open PublishStream calls.', () => gauges().openStreams?.());
  gauge('sluice_gateway_uncommitted_batches', 'Batches of such streams, accepted and not committed.', () =>
    gauges().uncommitted?.(),
  );
}
