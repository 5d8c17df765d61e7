/**
 * Bounds how many single calls are read at the same time. Hundreds of bodies that grow side by side would all be half there when memory
 * is used up (unfinished.ts); read in turn, each is soon whole. Calls beyond the bound wait unread, and flow control holds them back at
 * the sender. The gateway checks the key before: a refusal needs no seat. This does not affect streams, which read one message after
 * another.
 *
 *   GATE-1  At most `max` calls are inside. A tenant has a right to `maxOfTenant` of them. It may take more while no other tenant
 *       waits and `maxOfTenant` stay free, so that the next tenant enters at once. A call leaves with its answer.
 *   GATE-2  Tenants are served in turn, and the calls of one in their order. A call that goes away while it waits leaves the line.
 *   GATE-3  A call loses its seat after `holdMs`, and is read further without one. While others wait, it also loses the seat when its
 *       body brings less than `slowBytes` in `slowMs`: a slow sender must not keep others out. Its bytes stay counted.
 *   GATE-4  A call whose request is whole before it has a seat needs none, while all calls without one have at most `maxSkippedBytes`.
 *       Admission counts them. Past that, whole calls wait for a seat, too: waiting in line is better for a burst than `overloaded`.
 *
 * A call with a seat costs a few operations on maps. It needs no timer: while calls wait, one timer serves all of them.
 */
export interface GatedCall {
  readonly tenant: string;
  /** Bytes of its body so far; undefined: all have come. */
  readonly received: number | undefined;
  /** It may be read now. */
  enter(): void;
}

export interface CallGate {
  /** Lets the call enter, now or later. */
  pass(call: GatedCall): void;
  /** The call is over, or has gone away. Twice does no harm. */
  leave(call: GatedCall): void;
  /** GATE-4. @returns false: the call of so many bytes has to `pass` */
  skip(bytes: number): boolean;
  /** A call that needed no seat is over. To be called once. */
  skipped(bytes: number): void;
  readonly inside: number;
  readonly waiting: number;
}

export interface CallGateOptions {
  readonly max: number;
  readonly maxOfTenant: number;
  readonly holdMs: number;
  readonly maxSkippedBytes: number;
  /** Monotonic ms. */
  readonly now?: () => number;
  /** As setTimeout. */
  readonly after?: (ms: number, callback: () => void) => void;
}

/** 1 KiB a second. */
const slowMs = 250;
const slowBytes = 256;

interface Tenant {
  inside: number;
  readonly line: Set<GatedCall>;
}

interface Seat {
  readonly since: number;
  /** When its body was looked at last, and what had come by then. */
  lookedAt: number;
  received: number;
}

/** GATE-3. @param at monotonic ms */
function isOver({ received }: GatedCall, seat: Seat, at: number, holdMs: number): boolean {
  if (at >= seat.since + holdMs) return true;
  if (received === undefined || at < seat.lookedAt + slowMs) return false;
  const slow = received < seat.received + slowBytes;
  seat.lookedAt = at;
  seat.received = received;
  return slow;
}

export function createCallGate(options: CallGateOptions): CallGate {
  const { max, maxOfTenant, holdMs, maxSkippedBytes } = options;
  const now = options.now ?? (() => performance.now());
  const after = options.after ?? ((ms, callback) => void setTimeout(callback, ms).unref());
  /** With a call inside or in line, in the order in which they are served. */
  const tenants = new Map<string, Tenant>();
  const inside = new Map<GatedCall, Seat>();
  let waiting = 0;
  let skippedBytes = 0;
  let armed = false;

  const sit = (call: GatedCall, tenant: Tenant): void => {
    const at = now();
    tenant.inside++;
    inside.set(call, { since: at, lookedAt: at, received: 0 });
    call.enter();
  };

  const forget = (name: string, { inside, line }: Tenant): void => {
    if (inside === 0 && line.size === 0) tenants.delete(name);
  };

  const standUp = (call: GatedCall): boolean => {
    if (!inside.delete(call)) return false;
    const tenant = tenants.get(call.tenant) as Tenant;
    tenant.inside--;
    forget(call.tenant, tenant);
    return true;
  };

  /** GATE-1. */
  const mayEnter = (tenant: Tenant): boolean => {
    if (tenant.inside < maxOfTenant) return inside.size < max;
    return inside.size < max - maxOfTenant && waiting === tenant.line.size;
  };

  /** One of each tenant at a time, until none that waits may enter (GATE-2). */
  const admit = (): void => {
    for (const [name, tenant] of tenants) {
      if (waiting === 0 || inside.size >= max) return;
      const [call] = tenant.line;
      if (call === undefined || !mayEnter(tenant)) continue;
      tenant.line.delete(call);
      waiting--;
      // To the end: a Map visits what is added during the walk, so the walk goes round.
      tenants.delete(name);
      tenants.set(name, tenant);
      sit(call, tenant);
    }
  };

  const arm = (): void => {
    if (armed || waiting === 0) return;
    armed = true;
    after(slowMs, onTimer);
  };

  const onTimer = (): void => {
    armed = false;
    const at = now();
    for (const [call, seat] of inside) if (isOver(call, seat, at, holdMs)) standUp(call);
    admit();
    arm();
  };

  return {
    pass(call) {
      let tenant = tenants.get(call.tenant);
      if (tenant === undefined) {
        tenant = { inside: 0, line: new Set() };
        tenants.set(call.tenant, tenant);
      }
      if (tenant.line.size === 0 && mayEnter(tenant)) {
        sit(call, tenant);
        return;
      }
      tenant.line.add(call);
      waiting++;
      arm();
    },
    leave(call) {
      if (standUp(call)) {
        if (waiting > 0) admit();
        return;
      }
      const tenant = tenants.get(call.tenant);
      if (tenant === undefined || !tenant.line.delete(call)) return;
      waiting--;
      forget(call.tenant, tenant);
      // It may have kept another tenant within its right (GATE-1).
      if (waiting > 0) admit();
    },
    skip(bytes) {
      if (skippedBytes + bytes > maxSkippedBytes) return false;
      skippedBytes += bytes;
      return true;
    },
    skipped(bytes) {
      skippedBytes -= bytes;
    },
    get inside() {
      return inside.size;
    },
    get waiting() {
      return waiting;
    },
  };
}
