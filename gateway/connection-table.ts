/**
 * All connections: how many there may be, and when each has to go. It knows sockets and sessions, and nothing of requests but their number.
 *
 *   T1  A connection counts from TCP's accept on, before any work for TLS or HTTP is done: for its address (address-limits.ts) and in
 *       all. Peers at trusted addresses, which speak for many others, count in all only.
 *   T2  When an address or the gateway has all that it may have, the idlest connection makes room. One with an open call never does.
 *       When all have one, the newcomer is refused.
 *   T3  A connection without a call ends at a time that does not depend on what the peer sends meanwhile.
 *   T4  A peer that resets its calls before they are answered, or sends bytes that do nothing, loses its connection, and its address
 *       some of its new ones (A3).
 *   T5  All other ends are gentle: handlers are told, HTTP/2 peers get GOAWAY, calls are answered; what remains after the grace is cut.
 */
import { constants } from 'node:http2';
import type { Socket } from 'node:net';
import type { Log } from '../lib/log.js';
import { createSparseLog } from '../lib/sparse-log.js';
import { type AddressEntry, createAddressLimits, networkOf } from './address-limits.js';
import { lastWordsMs } from './answered-early.js';
import { HeldConnection } from './held-connection.js';

/** Why a newcomer was not taken. */
export type RefusedConnection = 'address_full' | 'address_rate' | 'full';
/** Why the gateway ended a connection that was neither old nor drained. */
export type EndedConnection = 'idle' | 'unused' | 'made_room' | 'resets' | 'useless_bytes' | 'pipelining';

export interface ConnectionTableOptions {
  readonly maxConnections: number;
  /** 0: no limit. */
  readonly maxConnectionsPerAddress: number;
  /** Per second; 0: no limit. */
  readonly newConnectionsPerAddress: number;
  readonly isTrusted: (address: string) => boolean;
  /** ms, ±10 %. */
  readonly maxConnectionAge: number;
  /** ms that calls in flight get when a connection has reached its age. */
  readonly grace: number;
  /** T3, ms without a call, after at least one. */
  readonly idleTimeout: number;
  /** T3, ms until the first call. */
  readonly firstCallTimeout: number;
  readonly onRefused: (why: RefusedConnection) => void;
  readonly onEnded: (why: EndedConnection) => void;
  readonly log: Log;
}

export interface ConnectionTable {
  readonly size: number;
  /** Calls that have no complete answer yet, of all connections. */
  readonly calls: number;
  /** T1. Undefined: it was refused, and is closed. */
  admit(raw: Socket): HeldConnection | undefined;
  begin(held: HeldConnection): void;
  /** @param answered else it was reset before */
  finish(held: HeldConnection, answered: boolean, beganAt?: number): void;
  /** The peer has sent headers that proxies send. */
  forwards(held: HeldConnection): void;
  /** T4. */
  punish(held: HeldConnection, why: EndedConnection): void;
  /** T5. */
  endAll(reason: string, graceMs: number): void;
  /** Resolves when no call is open, or after `ms`. */
  quiet(ms: number): Promise<void>;
  /** Cuts what is left after `ms`. */
  close(ms: number): Promise<void>;
}

const sweepMs = 250;
/** How many of the idlest one look through the table finds. */
const idlestAtOnce = 64;
const now = (): number => performance.now();

export function createConnectionTable(options: ConnectionTableOptions): ConnectionTable {
  const table = new Set<HeldConnection>();
  const byAddress = new Map<AddressEntry, Set<HeldConnection>>();
  const addresses = createAddressLimits({
    connections: options.maxConnectionsPerAddress,
    newPerSecond: options.newConnectionsPerAddress,
    now,
  });
  const log = createSparseLog(options.log);
  let calls = 0;
  let onQuiet: (() => void) | undefined;
  let idlest: HeldConnection[] = [];

  const remove = (held: HeldConnection): void => {
    if (!table.delete(held)) return;
    held.phase = 'gone';
    const { address } = held;
    if (address === undefined) return;
    addresses.closed(address);
    const others = byAddress.get(address);
    others?.delete(held);
    if (others?.size === 0) byAddress.delete(address);
  };

  const refuse = (raw: Socket, why: RefusedConnection, entry?: AddressEntry): undefined => {
    options.onRefused(why);
    // A reset leaves no state behind, neither here nor in the kernel.
    raw.resetAndDestroy();
    warnOfRefusal(log, options, why, entry);
    return undefined;
  };

  const makeRoom = (held: HeldConnection | undefined): boolean => {
    if (held === undefined) return false;
    remove(held);
    options.onEnded('made_room');
    letGo(held);
    return true;
  };

  /** T2, in all. One look through the table serves many newcomers, as long as those that it found stay idle. */
  const nextIdlest = (): HeldConnection | undefined => {
    for (let again = 0; again < 2; again++) {
      for (let held = idlest.pop(); held !== undefined; held = idlest.pop()) {
        if (held.open === 0 && held.phase !== 'gone') return held;
      }
      idlest = findIdlest(table, idlestAtOnce);
    }
    return undefined;
  };

  const admit = (raw: Socket): HeldConnection | undefined => {
    // Resets are everyday life; users of the socket hear of them by listeners of their own.
    raw.on('error', () => {});
    const { remoteAddress } = raw;
    if (remoteAddress === undefined) return void raw.destroy();
    const entry = options.isTrusted(remoteAddress) ? undefined : addresses.of(remoteAddress);
    if (entry !== undefined) {
      if (!addresses.takeToken(entry)) return refuse(raw, 'address_rate', entry);
      if (addresses.isFull(entry) && !makeRoom(findIdlest(byAddress.get(entry) ?? [], 1).pop())) {
        return refuse(raw, 'address_full', entry);
      }
    }
    if (table.size >= options.maxConnections && !makeRoom(nextIdlest())) return refuse(raw, 'full');
    return enter(raw, entry);
  };

  const enter = (raw: Socket, entry: AddressEntry | undefined): HeldConnection => {
    const held = new HeldConnection(raw, entry, now());
    table.add(held);
    if (entry !== undefined) {
      addresses.opened(entry);
      const others = byAddress.get(entry);
      if (others === undefined) byAddress.set(entry, new Set([held]));
      else others.add(held);
    }
    const age = setTimeout(
      () => end(held, 'This connection has reached its greatest age.', options.grace),
      options.maxConnectionAge * (0.9 + Math.random() * 0.2),
    );
    age.unref();
    raw.once('close', () => {
      clearTimeout(age);
      remove(held);
      // Handlers of streams that are still busy hear it from their own abort signal; others need not know.
    });
    return held;
  };

  /** T5. */
  const end = (held: HeldConnection, reason: string, graceMs: number): void => {
    if (held.control.ending !== undefined || held.phase === 'gone') return;
    held.phase = 'ending';
    held.control.end({ reason, graceMs });
    const { session, socket } = held;
    // GOAWAY; the session closes itself after its last stream.
    if (session !== undefined) session.close();
    else if (socket.bytesRead === 0) socket.destroy();
    setTimeout(cut, graceMs + lastWordsMs, held).unref();
  };

  /** T4. Not within a callback of the session: Node then puts it off, and nghttp2 may spin meanwhile (reset-stream.ts). */
  const punish = (held: HeldConnection, why: EndedConnection): void => {
    if (held.phase === 'gone') return;
    if (held.address !== undefined) addresses.punish(held.address);
    options.onEnded(why);
    remove(held);
    log.warn({ address: networkOf(held.control.remoteAddress ?? ''), why }, 'connection ended: its peer abuses it');
    setImmediate(() => {
      const { session } = held;
      if (session === undefined) return cut(held);
      if (!session.destroyed) session.destroy(null as never, constants.NGHTTP2_ENHANCE_YOUR_CALM);
      setTimeout(cut, lastWordsMs, held).unref();
    });
  };

  const sweep = (): void => {
    const time = now();
    for (const held of table) {
      if (held.phase !== 'serving') continue;
      const used = { bytes: held.socket.bytesRead, payload: held.payload, calls: held.calls };
      if (held.address !== undefined && !held.useless.look(used, time)) punish(held, 'useless_bytes');
      else if (held.open === 0) endIdle(held, time - held.idleSince);
    }
    addresses.sweep();
  };

  /** T3. What is still opening has time-outs of its own, which are shorter. */
  const endIdle = (held: HeldConnection, idleMs: number): void => {
    if (idleMs < (held.calls === 0 ? options.firstCallTimeout : options.idleTimeout)) return;
    options.onEnded(held.calls === 0 ? 'unused' : 'idle');
    held.phase = 'ending';
    letGo(held);
  };

  const sweeping = setInterval(sweep, sweepMs);
  sweeping.unref();

  return {
    get size() {
      return table.size;
    },
    get calls() {
      return calls;
    },
    admit,
    begin(held) {
      calls++;
      held.calls++;
      held.open++;
    },
    finish(held, answered, beganAt = 0) {
      if (--held.open === 0) held.idleSince = now();
      if (answered) held.resets.answered();
      else if (held.address !== undefined) {
        const time = now();
        if (!held.resets.reset(time - beganAt, time)) punish(held, 'resets');
      }
      if (--calls === 0) onQuiet?.();
    },
    forwards(held) {
      if (held.address !== undefined) held.address.forwards = true;
    },
    punish,
    endAll(reason, graceMs) {
      for (const held of table) end(held, reason, graceMs);
    },
    async quiet(ms) {
      if (calls === 0) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        onQuiet = () => {
          clearTimeout(timer);
          // The last answer may still be on its way to the socket.
          setImmediate(resolve);
        };
      });
    },
    async close(ms) {
      clearInterval(sweeping);
      const until = now() + ms;
      while (table.size > 0 && now() < until) await new Promise((resolve) => setTimeout(resolve, 10));
      for (const held of table) cut(held);
    },
  };
}

/** The idlest of these that have no open call, the very idlest last. */
function findIdlest(connections: Iterable<HeldConnection>, most: number): HeldConnection[] {
  const found: HeldConnection[] = [];
  for (const held of connections) {
    if (held.open > 0) continue;
    const first = found[0];
    if (found.length === most && first !== undefined && !held.yieldsBefore(first)) continue;
    let at = found.length;
    while (at > 0 && (found[at - 1] as HeldConnection).yieldsBefore(held)) at--;
    found.splice(at, 0, held);
    if (found.length > most) found.shift();
  }
  return found;
}

/** Ends a connection without a call: GOAWAY on HTTP/2, else the end of the stream of bytes. */
function letGo(held: HeldConnection): void {
  const { session, socket, raw } = held;
  if (held.control.ending === undefined) held.control.end({ reason: 'This connection was idle.', graceMs: 0 });
  if (session !== undefined) session.close();
  else if (held.calls === 0) raw.destroy();
  else socket.end();
  setTimeout(cut, lastWordsMs, held).unref();
}

function cut({ session, socket, raw }: HeldConnection): void {
  if (session !== undefined && !session.destroyed) session.destroy();
  socket.destroy();
  raw.destroy();
}

function warnOfRefusal(
  log: ReturnType<typeof createSparseLog>,
  { maxConnections, maxConnectionsPerAddress, newConnectionsPerAddress }: ConnectionTableOptions,
  why: RefusedConnection,
  entry: AddressEntry | undefined,
): void {
  if (why === 'full') {
    log.warn({ maxConnections }, 'connection refused: all connections have open calls');
    return;
  }
  const { network, forwards } = entry ?? {};
  log.warn(
    { address: network, ...(why === 'address_full' ? { maxConnectionsPerAddress } : { newConnectionsPerAddress }) },
    forwards === true
      ? 'connection refused: its address, which sends headers of a proxy, is at its limit. If it is your proxy, name it with --trusted-proxies'
      : 'connection refused: its address is at its limit',
  );
}
