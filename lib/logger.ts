/**
 * JSON logs, one object a line, on standard error (standard output is for what a command was asked to print).
 */
import { type Logger, pino } from 'pino';

export type { Logger };

/**
 * A logger for one role. Keys and authorization headers are never logged: `redact` is the second line of defence.
 * @param level pino level name.
 */
export function createLogger(role: string, level: string): Logger {
  return pino(
    {
      level,
      base: { role, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: {
        paths: ['authorization', 'key', '*.authorization', '*.key', 'headers.authorization'],
        censor: '[redacted]',
      },
    },
    pino.destination({ dest: 2, sync: true }),
  );
}

/** A logger that says nothing, for tests. */
export const silentLogger: Logger = pino({ level: 'silent' });
