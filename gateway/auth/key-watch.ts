/**
 * Tells the open streams of a key that it is revoked. All streams share one subscription to the directory.
 * Beside it, pending-tenants.ts answers for keys before NATS is reached. The directory itself is lib/tenants.ts.
 */
import type { TenantDirectory } from '../../lib/tenants.js';

export interface KeyWatch {
  /** Returns the un-subscriber. */
  onRevoked(keyId: string, listener: () => void): () => void;
  /** Open streams. */
  readonly size: number;
}

export function watchKeys(tenants: Pick<TenantDirectory, 'onRevoked'>): KeyWatch {
  const byKey = new Map<string, Set<() => void>>();
  let size = 0;
  tenants.onRevoked((keyId) => {
    for (const listener of [...(byKey.get(keyId) ?? [])]) listener();
  });
  return {
    onRevoked(keyId, listener) {
      let listeners = byKey.get(keyId);
      if (listeners === undefined) {
        listeners = new Set();
        byKey.set(keyId, listeners);
      }
      listeners.add(listener);
      size++;
      return () => {
        if (!listeners.delete(listener)) return;
        size--;
        if (listeners.size === 0 && byKey.get(keyId) === listeners) byKey.delete(keyId);
      };
    },
    get size() {
      return size;
    },
  };
}
