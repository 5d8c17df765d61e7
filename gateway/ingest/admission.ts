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
  /** Holds bytes until `release`. @throws SluiceError overloaded */
  take(tenant: string, bytes: number): void;
  release(tenant: string, bytes: number): void;
  /** Resolves when `bytes` more fit; undefined: they do. Rejects with the signal's reason. */
  room(tenant: string, bytes: number, signal: AbortSignal): Promise<void> | undefined;
  /** A whole batch of this tenant waits for room. */
  isFull(tenant: string): boolean;
  /** Held now. */
  readonly bytes: number;
}

interface Waiter {
  readonly bytes: number;
  readonly admit: () => void;
}

interface TenantState {
  held: number;
  /** Set aside for takes that follow at once (ADMIT-3). */
  granted: number;
  readonly waiters: Set<Waiter>;
}

const minRetryMs = 50;
const maxRetryMs = 5_000;
const rateWindowMs = 500;

export function createAdmission(options: AdmissionOptions): Admission {
  const { maxBytes, maxTenantBytes, now, random, later } = options;
  const tenants = new Map<string, TenantState>();
  // Tenants with waiters, in the order in which they are served next (ADMIT-2).
  const waiting = new Set<string>();
  let held = 0;
  let granted = 0;
  let sweepPlanned = false;

  // Bytes per ms that settle, averaged over about a window.
  let rate = 0;
  let windowStart = now();
  let windowBytes = 0;

  const drained = (bytes: number): void => {
    windowBytes += bytes;
    const at = now();
    const elapsed = at - windowStart;
    if (elapsed < rateWindowMs) return;
    rate = rate === 0 ? windowBytes / elapsed : rate * 0.5 + (windowBytes / elapsed) * 0.5;
    windowStart = at;
    windowBytes = 0;
  };

  /** Until about half of the bound has drained at the recent rate; nothing drains → long. Jittered by ±50 %. */
  const retryAfter = (bound: number): number => {
    const elapsed = now() - windowStart;
    // A window that is long overdue tells that the log has stalled since.
    const recent = elapsed > 2 * rateWindowMs ? windowBytes / elapsed : rate;
    const wait = recent === 0 ? maxRetryMs / 5 : bound / 2 / recent;
    return Math.round(Math.min(maxRetryMs, Math.max(minRetryMs, wait)) * (0.5 + random()));
  };

  const stateOf = (tenant: string): TenantState => {
    let state = tenants.get(tenant);
    if (state === undefined) {
      state = { held: 0, granted: 0, waiters: new Set() };
      tenants.set(tenant, state);
    }
    return state;
  };

  const forget = (tenant: string, state: TenantState): void => {
    if (state.held === 0 && state.granted === 0 && state.waiters.size === 0) tenants.delete(tenant);
  };

  const within = (used: number, bytes: number, bound: number): boolean => used === 0 || used + bytes <= bound;
  const fitsTenant = (state: TenantState, bytes: number): boolean =>
    within(state.held + state.granted, bytes, maxTenantBytes);
  const fitsTotal = (bytes: number): boolean => within(held + granted, bytes, maxBytes);

  const grant = (state: TenantState, bytes: number): void => {
    state.granted += bytes;
    granted += bytes;
    if (sweepPlanned) return;
    sweepPlanned = true;
    later(() => {
      sweepPlanned = false;
      if (granted === 0) return;
      granted = 0;
      for (const [tenant, other] of tenants) {
        other.granted = 0;
        forget(tenant, other);
      }
      serve();
    });
  };

  const serve = (): void => {
    for (const tenant of waiting) {
      const state = stateOf(tenant);
      const [waiter] = state.waiters;
      if (waiter === undefined) {
        waiting.delete(tenant);
        continue;
      }
      if (!fitsTenant(state, waiter.bytes)) continue;
      if (!fitsTotal(waiter.bytes)) return;
      state.waiters.delete(waiter);
      // To the end of the line: a Set visits what is added during the walk, so the walk goes round.
      waiting.delete(tenant);
      if (state.waiters.size > 0) waiting.add(tenant);
      grant(state, waiter.bytes);
      waiter.admit();
    }
  };

  return {
    take(tenant, bytes) {
      const state = stateOf(tenant);
      // What was set aside for this tenant is its own to use.
      const own = Math.min(state.granted, bytes);
      state.granted -= own;
      granted -= own;
      const tenantFits = fitsTenant(state, bytes);
      if (!tenantFits || !fitsTotal(bytes)) {
        state.granted += own;
        granted += own;
        forget(tenant, state);
        throw new SluiceError(
          'overloaded',
          tenantFits
            ? `The gateway holds what it may (${maxBytes} bytes) of all callers until the log has it, and takes no more.`
            : `The gateway holds ${state.held} bytes of this tenant that the log has not acknowledged yet, and takes no more than ${maxTenantBytes}.`,
          { retryAfterMs: retryAfter(tenantFits ? maxBytes : maxTenantBytes) },
        );
      }
      state.held += bytes;
      held += bytes;
    },
    release(tenant, bytes) {
      const state = stateOf(tenant);
      state.held -= bytes;
      held -= bytes;
      drained(bytes);
      forget(tenant, state);
      if (waiting.size > 0) serve();
    },
    room(tenant, bytes, signal) {
      if (signal.aborted) return Promise.reject(signal.reason);
      const state = stateOf(tenant);
      if (waiting.size === 0 && fitsTenant(state, bytes) && fitsTotal(bytes)) {
        grant(state, bytes);
        return undefined;
      }
      return new Promise((resolve, reject) => {
        const onAbort = (): void => {
          state.waiters.delete(waiter);
          if (state.waiters.size === 0) waiting.delete(tenant);
          forget(tenant, state);
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
    },
    isFull: (tenant) => waiting.has(tenant),
    get bytes() {
      return held;
    },
  };
}
