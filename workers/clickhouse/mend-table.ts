/**
 * Adds a missing column when a statement fails because the table lacks it: a user dropped a column that is used. It does not make a
 * missing table under running workers. The table may only be renamed or detached for a while, and a new one would be loaded from the
 * log as if nothing had been stored.
 */
import type { Logger } from '../../lib/logger.js';
import { StatementError } from './client.js';

export interface TableMender {
  /** Resolves when the table was looked at, if the error calls for that. Never rejects. */
  mend(error: unknown): Promise<void>;
}

export interface MenderOptions {
  /** Creates what is missing; harmless when nothing is. */
  readonly prepare: () => Promise<void>;
  readonly logger: Logger;
  /** Monotonic, ms. @default performance.now */
  readonly now?: () => number;
}

/** NOT_FOUND_COLUMN_IN_BLOCK, NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_IDENTIFIER, THERE_IS_NO_COLUMN. */
const lacksColumn: ReadonlySet<number | undefined> = new Set([10, 16, 47, 8]);
/** What did not help is not tried again at once, ms. */
const restMs = 5_000;

export function createTableMender({ prepare, logger, now = () => performance.now() }: MenderOptions): TableMender {
  let running: Promise<void> | undefined;
  let restUntil = Number.NEGATIVE_INFINITY;

  async function run(error: StatementError): Promise<void> {
    logger.warn(
      { error: error.message },
      'the events table lacks a column that is used: it is brought up to the contract',
    );
    try {
      await prepare();
      logger.info('the events table has what the contract needs');
    } catch (failure) {
      logger.error({ error: String(failure) }, 'the events table cannot be brought up to the contract');
    } finally {
      running = undefined;
      restUntil = now() + restMs;
    }
  }

  return {
    async mend(error) {
      if (!(error instanceof StatementError) || !lacksColumn.has(error.clickhouseCode)) return;
      // All shards meet it at the same time.
      if (running === undefined && now() >= restUntil) running = run(error);
      await running;
    },
  };
}
