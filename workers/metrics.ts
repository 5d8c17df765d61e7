/**
 * The worker's instruments and the span of each block. Made by one call after telemetry has started: instruments that are
 * made earlier stay silent (FACT-10).
 */
import { type Attributes, type Context, metrics, propagation, ROOT_CONTEXT, SpanKind, trace } from '@opentelemetry/api';
import type { CircuitStats } from './clickhouse/circuit.js';
import type { WaitsFor } from './clickhouse/connect.js';
import type { Block } from './loader/block.js';
import type { Place } from './loader/loader.js';
import type { LoaderMetrics } from './loader/loader-metrics.js';

export interface WorkerGauges {
  /** Bytes of messages held in memory. */
  readonly bytesHeld: () => number;
  /** The pool of connections to ClickHouse, by name of the figure. */
  readonly pool: () => Readonly<Record<string, number>>;
  /** The circuit breakers around ClickHouse, by name. */
  readonly circuits: () => Readonly<Record<string, CircuitStats>>;
}

/** What a worker waits for while it starts: shown at /metrics, and told to the process that started it. */
export function createWaitingMetric() {
  const all: readonly WaitsFor[] = ['warehouse', 'table', 'shards'];
  let current: WaitsFor | undefined;
  let reason: string | undefined;
  let told: string | undefined;
  metrics
    .getMeter('sluice')
    .createObservableGauge('sluice_worker_waiting', {
      description:
        '1: the worker cannot start. warehouse: ClickHouse cannot be reached; table: its events table does not fit; shards: their number is not known.',
    })
    .addCallback((result) => {
      for (const what of all) result.observe(what === current ? 1 : 0, { for: what });
    });
  return {
    get current() {
      return current;
    },
    /** Why it cannot start yet, as one sentence. */
    get reason() {
      return reason;
    },
    tell(what: WaitsFor, why: string): void {
      current = what;
      reason = what === 'warehouse' ? `ClickHouse cannot be reached: ${why}` : why;
      if (told === why || what === 'warehouse') return;
      told = why;
      process.send?.({ waits: why });
    },
    over(): void {
      current = undefined;
      reason = undefined;
    },
  };
}

/** Context of one batch's request, for a link. */
function linkOf(traceparent: string): { context: NonNullable<ReturnType<typeof trace.getSpanContext>> } | undefined {
  const context: Context = propagation.extract(ROOT_CONTEXT, { traceparent });
  const span = trace.getSpanContext(context);
  return span === undefined ? undefined : { context: span };
}

type Meter = ReturnType<typeof metrics.getMeter>;

/** What is counted and measured when it happens. */
function createInstruments(meter: Meter) {
  const counter = (name: string, description: string, unit = '1') => meter.createCounter(name, { description, unit });
  const rows = counter('sluice_worker_rows', 'Rows stored.');
  const bytes = counter('sluice_worker_bytes', 'Bytes of payload stored.', 'By');
  const blocks = counter('sluice_worker_blocks', 'Blocks stored, by why they were cut.');
  const others = counter('sluice_worker_others_blocks', 'Blocks that another worker turned out to have stored.');
  const failures = counter(
    'sluice_worker_insert_failures',
    'INSERTs that failed: busy, content, fatal, large, transient, unclear.',
  );
  const storedAnyway = counter(
    'sluice_worker_insert_failures_stored',
    'INSERTs that failed though their block is stored, by ClickHouse error code: a materialized view refuses it.',
  );
  const recoveries = counter('sluice_worker_recoveries', "Times a shard's position was read from ClickHouse.");
  const gaps = counter(
    'sluice_worker_gap_messages',
    'Messages that were gone from the stream before they were loaded.',
  );
  const trims = counter('sluice_worker_trims', 'Times loaded messages were removed from a stream.');
  const duplicates = counter(
    'sluice_worker_duplicate_events',
    'Events left out of blocks: their batch was sent again.',
  );
  const deadBatches = counter('sluice_worker_dead_batches', 'Batches that went to the dead letters, by kind.');
  const deadEvents = counter('sluice_worker_dead_events', 'Events in them that are not stored.');
  const blockRows = meter.createHistogram('sluice_worker_block_rows', {
    description: 'Rows of a block.',
    advice: { explicitBucketBoundaries: [1, 10, 100, 1e3, 1e4, 25e3, 5e4, 1e5, 15e4, 2e5, 5e5] },
  });
  const insertSeconds = meter.createHistogram('sluice_worker_insert_seconds', {
    description: 'How long an INSERT took.',
    unit: 's',
    advice: { explicitBucketBoundaries: [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30] },
  });
  return {
    rows,
    bytes,
    blocks,
    others,
    failures,
    storedAnyway,
    recoveries,
    gaps,
    trims,
    duplicates,
    deadBatches,
    deadEvents,
    blockRows,
    insertSeconds,
  };
}

/** What each shard of this worker is at, by shard. */
function createShardGauges(meter: Meter) {
  const byShard = {
    depth: new Map<number, number>(),
    lag: new Map<number, number>(),
    stopped: new Map<number, number>(),
    stuck: new Map<number, number>(),
    lettersBlocked: new Map<number, number>(),
    standing: new Map<number, number>(),
  };
  const perShard = (name: string, description: string, values: Map<number, number>): void => {
    meter.createObservableGauge(name, { description }).addCallback((result) => {
      for (const [shard, value] of values) result.observe(value, { shard });
    });
  };
  perShard('sluice_worker_queue_depth', 'Messages in the stream that are not loaded yet.', byShard.depth);
  perShard('sluice_worker_lag_seconds', 'Age of the oldest message that is not loaded yet.', byShard.lag);
  perShard(
    'sluice_worker_shard_stopped',
    '1: the shard is not loaded until an operator acts; see the log.',
    byShard.stopped,
  );
  perShard('sluice_worker_shard_stuck', '1: ClickHouse refuses the block at the front; see the log.', byShard.stuck);
  perShard(
    'sluice_worker_shard_standing',
    '1: the shard has messages and stores nothing; `sluice shards` and the log say why.',
    byShard.standing,
  );
  perShard(
    'sluice_worker_dead_letters_blocked',
    '1: a dead letter cannot be written, and the shard waits; see the log.',
    byShard.lettersBlocked,
  );
  meter
    .createObservableGauge('sluice_worker_shards', { description: 'Shards that this worker loads.' })
    .addCallback((result) => result.observe(byShard.stopped.size));
  return byShard;
}

/** What the process holds. */
function observeGauges(meter: Meter, gauges: WorkerGauges): void {
  meter
    .createObservableGauge('sluice_worker_bytes_held', { description: 'Bytes of messages held in memory.', unit: 'By' })
    .addCallback((result) => result.observe(gauges.bytesHeld()));
  meter
    .createObservableGauge('sluice_worker_pool', { description: 'Connections to ClickHouse, by figure.' })
    .addCallback((result) => {
      for (const [figure, value] of Object.entries(gauges.pool())) result.observe(value, { figure });
    });
  meter
    .createObservableGauge('sluice_worker_circuit_state', {
      description: 'Circuit breakers: 0 closed, 1 half open, 2 open.',
    })
    .addCallback((result) => {
      for (const [circuit, { state }] of Object.entries(gauges.circuits())) result.observe(state, { circuit });
    });
  meter
    .createObservableCounter('sluice_worker_circuit_transitions', {
      description: 'Changes of the circuit breakers, by what they changed to.',
    })
    .addCallback((result) => {
      for (const [circuit, { open, halfOpen, closed }] of Object.entries(gauges.circuits())) {
        result.observe(open, { circuit, to: 'open' });
        result.observe(halfOpen, { circuit, to: 'half_open' });
        result.observe(closed, { circuit, to: 'closed' });
      }
    });
  meter
    .createObservableCounter('sluice_worker_circuit_held_back', { description: 'Statements that were not sent.' })
    .addCallback((result) => {
      for (const [circuit, { heldBack }] of Object.entries(gauges.circuits())) result.observe(heldBack, { circuit });
    });
}

/** The span of a block. @param startedAt of performance.now() */
function recordSpan(shard: number, block: Block, place: Place, startedAt: number): void {
  const attributes: Attributes = {
    'sluice.shard': shard,
    'sluice.block': place.block,
    'sluice.rows': block.rows,
    'sluice.lo': block.lo,
    'sluice.hi': block.hi,
    'sluice.flush_reason': block.reason,
  };
  const links = block.traces.map(linkOf).filter((link) => link !== undefined);
  trace
    .getTracer('sluice')
    .startSpan(
      'load block',
      {
        kind: SpanKind.CONSUMER,
        attributes,
        links,
        root: true,
        startTime: Date.now() - (performance.now() - startedAt),
      },
      ROOT_CONTEXT,
    )
    .end();
}

export function createWorkerMetrics(gauges: WorkerGauges): LoaderMetrics {
  const meter = metrics.getMeter('sluice');
  const instruments = createInstruments(meter);
  const byShard = createShardGauges(meter);
  observeGauges(meter, gauges);

  return {
    inserted: (shard, seconds) => instruments.insertSeconds.record(seconds, { shard }),
    insertFailed: (shard, failure) => instruments.failures.add(1, { shard, failure }),
    settled(shard, block, mine, place, startedAt) {
      byShard.stuck.set(shard, 0);
      if (!mine) {
        instruments.others.add(1, { shard });
        return;
      }
      instruments.rows.add(block.rows, { shard });
      instruments.bytes.add(block.bytes, { shard });
      instruments.blocks.add(1, { shard, reason: block.reason });
      if (block.duplicate > 0) instruments.duplicates.add(block.duplicate, { shard });
      instruments.blockRows.record(block.rows, { shard });
      recordSpan(shard, block, place, startedAt);
    },
    recovered(shard) {
      instruments.recoveries.add(1, { shard });
      byShard.stopped.set(shard, 0);
      byShard.stuck.set(shard, 0);
      byShard.lettersBlocked.set(shard, 0);
    },
    gap: (shard, messages) => instruments.gaps.add(messages, { shard }),
    trimmed: (shard) => instruments.trims.add(1, { shard }),
    dead(shard, kind, events) {
      instruments.deadBatches.add(1, { shard, kind });
      instruments.deadEvents.add(events, { shard, kind });
    },
    lettersBlocked: (shard, blocked) => void byShard.lettersBlocked.set(shard, blocked ? 1 : 0),
    stopped: (shard, stopped) => void byShard.stopped.set(shard, stopped ? 1 : 0),
    stuck: (shard, stuck) => void byShard.stuck.set(shard, stuck ? 1 : 0),
    standing: (shard, standing) => void byShard.standing.set(shard, standing ? 1 : 0),
    storedAnyway: (shard, code) => instruments.storedAnyway.add(1, { shard, code }),
    measured(shard, { depth, lagMs }) {
      byShard.depth.set(shard, depth);
      byShard.lag.set(shard, lagMs / 1000);
    },
    left(shard) {
      for (const values of Object.values(byShard)) values.delete(shard);
    },
  };
}
