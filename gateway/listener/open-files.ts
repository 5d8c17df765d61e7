/** How many connections the process can have: each takes a file descriptor, and the operating system limits those. */
import { readFileSync } from 'node:fs';
import type { Logger } from '../../lib/logger.js';

/** Descriptors for all else: NATS, the metrics endpoint, logs, TLS files, the loop itself. */
const reserved = 100;

/** The soft limit of open files in the text of /proc/<pid>/limits. Undefined: there is none. */
export function openFilesOf(limits: string): number | undefined {
  const soft = /^Max open files\s+(\d+)/m.exec(limits)?.[1];
  return soft === undefined ? undefined : Number(soft);
}

/**
 * At most so many connections, so that the process keeps descriptors for itself. Without one it can neither accept nor reconnect to NATS;
 * libuv then closes what waits, and clients see no reason.
 * @param wanted maxConnections
 */
export function allowedConnections(
  wanted: number,
  logger: Pick<Logger, 'warn'>,
  limits: () => string = ownLimits,
): number {
  const openFiles = openFilesOf(limits());
  if (openFiles === undefined || openFiles - reserved >= wanted) return wanted;
  const most = Math.max(1, openFiles - reserved);
  logger.warn(
    { openFiles, maxConnections: wanted, most },
    'the limit of open files is too low for --max-connections: the gateway takes fewer. Raise it (ulimit -n, LimitNOFILE, ulimits)',
  );
  return most;
}

/** Node raises the soft limit to the hard one when it starts. */
function ownLimits(): string {
  try {
    return readFileSync('/proc/self/limits', 'utf8');
  } catch {
    // Not Linux.
    return '';
  }
}
