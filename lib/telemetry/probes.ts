/**
 * Answers probes on the metrics port. That port has separate connections, so a gateway whose own port is full or flooded looks busy and
 * not dead.
 *
 *   /healthz  this process lives
 *   /readyz   200, or 503 with the reason; 404 in a role that is never unready
 */

export interface ProbedRole {
  readonly ready: boolean;
  /** Why not. */
  readonly reason: string | undefined;
}

let probed: ProbedRole | undefined;

/** From now on /readyz asks this. */
export function answerProbes(role: ProbedRole): void {
  probed = role;
}

/** Undefined: there is no such path. */
export function probe(path: string): { readonly status: number; readonly body: object } | undefined {
  if (path === '/healthz') return { status: 200, body: { status: 'alive' } };
  if (path !== '/readyz' || probed === undefined) return undefined;
  if (probed.ready) return { status: 200, body: { status: 'ready' } };
  return { status: 503, body: { status: 'not ready', reason: probed.reason ?? 'starting' } };
}
