/**
 * Counts bytes that are held, and bytes that are set aside for a moment, in all and per tenant, against the bounds of both (ADMIT-1, ADMIT-3 in
 * admission.ts).
 */

export interface TenantBytes<W> {
  held: number;
  /** For takes that follow at once. */
  setAside: number;
  readonly waiters: Set<W>;
}

/** A single batch always fits when nothing else is held. @param before of `used`, what the batch itself has */
const within = (used: number, bytes: number, bound: number, before = 0): boolean =>
  used === before || used + bytes <= bound;

export class ByteBounds<W> {
  readonly #maxBytes: number;
  readonly #maxTenantBytes: number;
  /** Tenants that hold something, or wait. */
  readonly #tenants = new Map<string, TenantBytes<W>>();
  #setAside = 0;
  held = 0;

  constructor(maxBytes: number, maxTenantBytes: number) {
    this.#maxBytes = maxBytes;
    this.#maxTenantBytes = maxTenantBytes;
  }

  of(tenant: string): TenantBytes<W> {
    let state = this.#tenants.get(tenant);
    if (state === undefined) {
      state = { held: 0, setAside: 0, waiters: new Set() };
      this.#tenants.set(tenant, state);
    }
    return state;
  }

  heldOf(tenant: string): number {
    return this.#tenants.get(tenant)?.held ?? 0;
  }

  /** Drops the state of a tenant that has nothing. */
  forget(tenant: string, state: TenantBytes<W>): void {
    if (state.held === 0 && state.setAside === 0 && state.waiters.size === 0) this.#tenants.delete(tenant);
  }

  fitsTenant(state: TenantBytes<W>, bytes: number, before = 0): boolean {
    return within(state.held + state.setAside, bytes, this.#maxTenantBytes, before);
  }

  fitsTotal(bytes: number, before = 0): boolean {
    return within(this.held + this.#setAside, bytes, this.#maxBytes, before);
  }

  setAside(state: TenantBytes<W>, bytes: number): void {
    state.setAside += bytes;
    this.#setAside += bytes;
  }

  /** @returns whether there was something */
  giveBackSetAside(): boolean {
    if (this.#setAside === 0) return false;
    this.#setAside = 0;
    for (const [tenant, state] of this.#tenants) {
      state.setAside = 0;
      this.forget(tenant, state);
    }
    return true;
  }

  /** Holds the bytes. @param before what the same batch holds already @returns what is full, when they do not fit */
  take(tenant: string, bytes: number, before = 0): 'tenant' | 'gateway' | undefined {
    const state = this.of(tenant);
    // What was set aside for this tenant is its own to use.
    const own = Math.min(state.setAside, bytes);
    this.setAside(state, -own);
    const tenantFits = this.fitsTenant(state, bytes, before);
    if (!tenantFits || !this.fitsTotal(bytes, before)) {
      this.setAside(state, own);
      this.forget(tenant, state);
      return tenantFits ? 'gateway' : 'tenant';
    }
    state.held += bytes;
    this.held += bytes;
    return undefined;
  }

  release(tenant: string, bytes: number): void {
    const state = this.of(tenant);
    state.held -= bytes;
    this.held -= bytes;
    this.forget(tenant, state);
  }
}
