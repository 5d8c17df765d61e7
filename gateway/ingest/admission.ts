/**
 * Bounds the bytes in flight, in all and per tenant. This keeps the gateway's memory flat when the log is slower than the callers.
 *
 *   ADMIT-1  Held bytes never pass a bound, except that a single batch is always admitted when nothing else is held.
 *   ADMIT-2  Waiters are served in turn between tenants and first come, first served within one. A waiter that is stopped by
 *       the total is not overtaken by smaller ones; one that is stopped by its tenant's bound delays no other.
 *   ADMIT-3  `room` sets its bytes aside for the `take` of this tenant that follows at once (before the next macrotask), so
 *       that woken waiters do not race with other tenants. What is not taken then goes to the next waiter.
 *
 * Pure: clock, randomness and the macrotask are injected.
 */
import { SluiceError } from '../../lib/errors.js';
import { ByteBounds, type TenantBytes } from './byte-bounds.js';
import { SettleRate } from './settle-rate.js';

export interface AdmissionOptions {
  /** Most bytes held in all. */
  readonly maxBytes: number;
  /** Most bytes held for one tenant. */
  readonly maxTenantBytes: number;
  /** Monotonic ms. */
  readonly now: () => number;
  /** In [0, 1). */
  readonly random: () => number;
  /** Runs the callback in a later macrotask (setImmediate). */
  readonly later: (callback: () => void) => void;
}

export interface Admission {
  /**
   * Holds bytes until `release`.
   * @param before what this batch holds already (ADMIT-1). @default 0
   * @throws SluiceError overloaded
   */
  take(tenant: string, bytes: number, before?: number): void;
  release(tenant: string, bytes: number): void;
  /** Resolves when `bytes` more fit; undefined: they do. Rejects with the signal's reason. */
  room(tenant: string, bytes: number, signal: AbortSignal): Promise<void> | undefined;
  /** A whole batch of this tenant waits for room. */
  isFull(tenant: string): boolean;
  /** Held now. */
  readonly bytes: number;
}

export function createAdmission(options: AdmissionOptions): Admission {
  const { maxBytes, maxTenantBytes, later } = options;
  const bounds = new ByteBounds<Waiter>(maxBytes, maxTenantBytes);
  const rate = new SettleRate(options.now, options.random);
  // Tenants with waiters, in the order in which they are served next (ADMIT-2).
  const waiting = new Set<string>();
  let sweepPlanned = false;

  const refusal = (full: 'tenant' | 'gateway', held: number): SluiceError =>
    new SluiceError(
      'overloaded',
      full === 'gateway'
        ? `The gateway holds its limit of ${maxBytes} bytes that the log does not have yet, and takes no more.`
        : `The gateway holds ${held} bytes of this tenant that the log has not acknowledged yet, and takes no more than ${maxTenantBytes}.`,
      { retryAfterMs: rate.retryAfterMs(full === 'gateway' ? maxBytes : maxTenantBytes) },
    );

  /** ADMIT-3. */
  const setAside = (state: TenantBytes<Waiter>, bytes: number): void => {
    bounds.setAside(state, bytes);
    if (sweepPlanned) return;
    sweepPlanned = true;
    later(() => {
      sweepPlanned = false;
      if (bounds.giveBackSetAside()) serve();
    });
  };

  const serve = (): void => {
    for (const tenant of waiting) {
      const state = bounds.of(tenant);
      const [waiter] = state.waiters;
      if (waiter === undefined) {
        waiting.delete(tenant);
        continue;
      }
      if (!bounds.fitsTenant(state, waiter.bytes)) continue;
      if (!bounds.fitsTotal(waiter.bytes)) return;
      state.waiters.delete(waiter);
      // To the end of the line: a Set visits what is added during the walk, so the walk goes round.
      waiting.delete(tenant);
      if (state.waiters.size > 0) waiting.add(tenant);
      setAside(state, waiter.bytes);
      waiter.admit();
    }
  };

  const wait = (tenant: string, bytes: number, signal: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      const state = bounds.of(tenant);
      const onAbort = (): void => {
        state.waiters.delete(waiter);
        if (state.waiters.size === 0) waiting.delete(tenant);
        bounds.forget(tenant, state);
        reject(signal.reason);
        // It may have been the one that held up the line.
        serve();
      };
      const waiter: Waiter = {
        bytes,
        admit: () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      signal.addEventListener('abort', onAbort, { once: true });
      state.waiters.add(waiter);
      waiting.add(tenant);
      serve();
    });

  return {
    take(tenant, bytes, before = 0) {
      const full = bounds.take(tenant, bytes, before);
      if (full !== undefined) throw refusal(full, bounds.heldOf(tenant));
    },
    release(tenant, bytes) {
      bounds.release(tenant, bytes);
      rate.settled(bytes);
      if (waiting.size > 0) serve();
    },
    room(tenant, bytes, signal) {
      if (signal.aborted) return Promise.reject(signal.reason);
      const state = bounds.of(tenant);
      if (waiting.size === 0 && bounds.fitsTenant(state, bytes) && bounds.fitsTotal(bytes)) {
        setAside(state, bytes);
        return undefined;
      }
      return wait(tenant, bytes, signal);
    },
    isFull: (tenant) => waiting.has(tenant),
    get bytes() {
      return bounds.held;
    },
  };
}

interface Waiter {
  readonly bytes: number;
  readonly admit: () => void;
}
