/**
 * The tenant directory before NATS has been reached: no tenant is known yet, and that is the gateway's fault, not the
 * caller's, so it says "unavailable" and not "unauthenticated".
 */
import { retryAfter } from '../../lib/back-off.js';
import { SluiceError } from '../../lib/errors.js';
import type { Logger } from '../../lib/logger.js';
import type { TenantDirectory } from '../../lib/tenants.js';

export interface PendingTenantsOptions {
  /** Opens the real directory; called again, with pauses, until it succeeds. */
  readonly open: () => Promise<TenantDirectory>;
  readonly logger: Logger;
}

const retryMs = 500;

export function createPendingTenants({ open, logger }: PendingTenantsOptions): TenantDirectory {
  const listeners = new Set<(keyId: string) => void>();
  let real: TenantDirectory | undefined;
  let closed = false;

  void (async () => {
    let warned = false;
    while (!closed) {
      try {
        const opened = await open();
        if (closed) return await opened.close();
        opened.onRevoked((keyId) => {
          for (const listener of listeners) listener(keyId);
        });
        real = opened;
        return;
      } catch (reason) {
        if (!warned) logger.warn({ err: reason }, 'cannot read the keys yet; trying again');
        warned = true;
        await new Promise((resolve) => setTimeout(resolve, retryMs));
      }
    }
  })();

  return {
    lookup(authorization) {
      if (real === undefined || !real.ready) {
        throw new SluiceError('log_unavailable', 'The keys of this installation have not been read yet.', {
          retryAfterMs: retryAfter(1_000),
        });
      }
      return real.lookup(authorization);
    },
    onRevoked(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    get ready() {
      return real?.ready ?? false;
    },
    stats: () => real?.stats() ?? { hits: 0, misses: 0 },
    async close() {
      closed = true;
      await real?.close();
    },
  };
}
