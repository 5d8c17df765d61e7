/** Lines in the log and metrics for what happens to a shard. */
import { StatementError } from '../clickhouse/errors.js';
import { wasUnsent } from './gatherer.js';
import type { LoaderEvent, Place, ShardState } from './loader.js';
import type { LoaderMetrics } from './loader-metrics.js';
import type { Committed } from './position.js';
import type { ShardContext } from './shard-options.js';

type EventOf<Kind extends LoaderEvent['kind']> = Extract<LoaderEvent, { readonly kind: Kind }>;
type Reporting = Pick<ShardContext, 'shard' | 'stream' | 'metrics' | 'logger' | 'still'>;

/** Causes of an INSERT that fails though its block is stored, that are logged one by one. */
const maxCauses = 16;

/** The view that ClickHouse's message names. */
const viewIn = (message: string): string | undefined => /\bview ([^\s(,]*[^\s(,.:;])/.exec(message)?.[1];

export const reportGap = (
  {
    shard,
    metrics,
    logger,
  }: { readonly shard: number; readonly metrics: LoaderMetrics; readonly logger: ShardContext['logger'] },
  from: number,
  to: number,
): void => {
  metrics.gap(shard, to - from + 1);
  logger.error(
    { from, to },
    'messages are gone from the stream that ClickHouse does not show: they were removed by hand, or ' +
      'their rows were erased; the shard goes on after them',
  );
};

/** Rows are never removed by the loader, so this was done by hand: TRUNCATE, a dropped day, a backup that was put back. */
export function reportRemovedRows(
  logger: ShardContext['logger'],
  before: Committed | undefined,
  { generation, hi, firstSequence }: ShardState,
): void {
  if (before === undefined || before.generation !== generation || hi >= before.hi) return;
  logger.warn(
    { had: before.hi, has: hi, logFrom: firstSequence },
    'ClickHouse has fewer messages of this shard than it had: rows were removed. What the log still holds of them is loaded again',
  );
}

/** Returns what reports an event. @param onRecovered does what follows from a recovery besides */
export function createReport(
  context: Reporting,
  onRecovered: (state: ShardState) => void,
): (event: LoaderEvent) => void {
  const { shard, metrics, logger, still } = context;
  const reportStoredAnyway = storedAnywayReport(context);
  /** What the circuit breaker held back is logged once, by the breaker. */
  const tried = (error: unknown, about: object, what: string): void =>
    logger[wasUnsent(error) ? 'debug' : 'warn']({ ...about, error: String(error) }, what);

  return (event) => {
    switch (event.kind) {
      case 'recovered':
        onRecovered(event.state);
        return;
      case 'recover-failed':
        still.failed('cannot find out where the shard stands', event.error);
        tried(event.error, { waitMs: event.waitMs }, 'cannot recover yet');
        return;
      case 'gap':
        reportGap(context, event.from, event.to);
        return;
      case 'plan-failed':
        still.failed('cannot find out what of a block is to be stored', event.error);
        logger.warn(
          { error: String(event.error), waitMs: event.waitMs },
          'cannot find out yet what of a block is stored',
        );
        return;
      case 'insert-failed':
        still.failed('storing a block fails', event.error);
        metrics.insertFailed(shard, event.failure);
        reportInsertFailed(context, event, tried);
        return;
      case 'stored-anyway':
        reportStoredAnyway(event.place, event.error);
        return;
      case 'read-back-failed':
        still.failed('cannot read back whether a block is stored', event.error);
        tried(event.error, { block: event.place.block, waitMs: event.waitMs }, 'reading back failed');
        return;
      case 'absent':
        logger.info({ block: event.place.block }, 'the block is not there yet');
        return;
      default: {
        const never: never = event;
        throw new Error(`unknown event ${String(never)}`);
      }
    }
  };
}

function reportInsertFailed(
  { shard, stream, metrics, logger }: Reporting,
  { failure, place, block: { lo, hi }, waitMs, error }: EventOf<'insert-failed'>,
  tried: (error: unknown, about: object, what: string) => void,
): void {
  const about = { block: place.block, lo, hi, waitMs, error: String(error) };
  if (failure !== 'content' && failure !== 'fatal' && failure !== 'unclear') {
    tried(error, about, failure === 'busy' ? 'the block is being stored' : 'storing a block failed');
    return;
  }
  metrics.stuck(shard, true);
  const what = {
    content: `ClickHouse refuses the content of messages ${lo} to ${hi} of ${stream}`,
    fatal: 'ClickHouse refuses blocks',
    unclear: 'storing a block fails with an error that is not known here',
  };
  logger.error(about, what[failure]);
}

/** Something beside the table failed: ClickHouse stores a block first, and then hands it to the materialized views. */
function storedAnywayReport({ shard, metrics, logger }: Reporting): (place: Place, error: unknown) => void {
  const causes = new Set<string>();
  return (place, error) => {
    if (!(error instanceof StatementError) || error.clickhouseCode === undefined || error.kind === 'busy') return;
    metrics.storedAnyway(shard, error.clickhouseCode);
    const cause = `${error.clickhouseCode} ${viewIn(error.message) ?? ''}`;
    if (causes.has(cause) || causes.size >= maxCauses) return;
    causes.add(cause);
    logger.warn(
      { block: place.block, view: viewIn(error.message), error: error.message },
      'an INSERT fails although its block is stored: a materialized view on the events table, or another that depends on it, lacks these ' +
        'rows; mend or drop the view, and fill it from the table (reported once per cause, counted in sluice_worker_insert_failures_stored)',
    );
  };
}
