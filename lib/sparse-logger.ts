/**
 * A logger for events that strangers can cause: one line a second of each message; the next line says how many were left out.
 */
import type { Logger } from './logger.js';

export interface SparseLogger {
  /** @param message constant: it is what lines are counted by */
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

const everyMs = 1_000;

/** @param now monotonic, ms */
export function createSparseLogger(
  logger: Pick<Logger, 'warn' | 'error'>,
  now: () => number = () => performance.now(),
): SparseLogger {
  const lines = new Map<string, { at: number; suppressed: number }>();
  const write = (level: 'warn' | 'error', fields: object, message: string): void => {
    const time = now();
    let line = lines.get(message);
    if (line === undefined) {
      line = { at: Number.NEGATIVE_INFINITY, suppressed: 0 };
      lines.set(message, line);
    }
    if (time - line.at < everyMs) {
      line.suppressed++;
      return;
    }
    logger[level](line.suppressed === 0 ? fields : { ...fields, suppressed: line.suppressed }, message);
    line.at = time;
    line.suppressed = 0;
  };
  return {
    warn: (fields, message) => write('warn', fields, message),
    error: (fields, message) => write('error', fields, message),
  };
}
