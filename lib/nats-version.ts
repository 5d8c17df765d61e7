/**
 * Decides which nats-server may hold replicated streams.
 *
 * Replicated streams of older servers lose acknowledged messages when nodes are killed (2.9.10: FACT-8), or when one node's
 * files are damaged (before 2.12.7 and 2.14). A single copy is another matter: 2.9.10 lost none.
 */

/** For messages to operators. */
export const replicatesFrom = '2.12.7, or 2.14';

/** @param version as a server tells it, e.g. "2.14.9" or "2.15.0-RC.1"; anything else is not trusted */
export function replicatesSafely(version: string): boolean {
  const match = /^v?(\d+)\.(\d+)\.(\d+)/.exec(version);
  if (match === null) return false;
  const [major = 0, minor = 0, patch = 0] = match.slice(1).map(Number);
  return major > 2 || (major === 2 && (minor > 12 || (minor === 12 && patch >= 7)));
}
