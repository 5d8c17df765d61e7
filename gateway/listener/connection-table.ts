/**
 * All connections: how many there may be, and when each ends. It knows sockets and sessions, and of requests only their number.
 *
 *   CONN-1  A connection counts from TCP's accept on, before any work for TLS or HTTP is done: for its address (address-limits.ts) and in
 *       all. Peers at trusted addresses, which speak for many others, count in all only.
 *   CONN-2  When an address or the gateway has all that it may have, the idlest connection makes room. One with an open call never does.
 *       When all have one, the newcomer is refused.
 *   CONN-3  A connection without a call ends at a time that does not depend on what the peer sends meanwhile.
 *   CONN-4  A peer loses its connection, and its address new ones, and at last all (ADDR-3), when it resets its calls before they are answered,
 *       makes calls that are refused, sends too many ahead, floods, or sends bytes that do nothing. Refused calls of others do not end a
 *       connection that has shown a valid key in the last minute.
 *   CONN-5  All other ends are gentle: handlers hear of it, HTTP/2 peers get GOAWAY, calls are answered; what remains after the grace is destroyed.
 */
import { constants } from 'node:http2';
import type { Socket } from 'node:net';
import type { Logger } from '../../lib/logger.js';
import { createSparseLogger, type SparseLogger } from '../../lib/sparse-logger.js';
import type { EndedConnection, RefusedConnection } from '../metrics.js';
import { type AddressEntry, type AddressLimits, createAddressLimits } from './address-limits.js';
import { lastWordsMs } from './answered-early.js';
import { ConnectionEntry, type SeenAbuse } from './connection-entry.js';
import { type StreamWindows, wideWindow } from './stream-windows.js';

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
  /** CONN-3, ms without a call, after at least one. */
  readonly idleTimeout: number;
  /** CONN-3, ms until the first call. */
  readonly firstCallTimeout: number;
  readonly windows: StreamWindows;
  readonly onRefused: (why: RefusedConnection) => void;
  readonly onEnded: (why: EndedConnection) => void;
  readonly logger: Logger;
}

const sweepMs = 250;
/** How many of the idlest one look through the table finds. */
const idlestAtOnce = 64;
/**
 * Open calls of a connection. HTTP/2 and HTTP/1.1 allow fewer (http2-server.ts, http1-server.ts); more are there only when calls that
 * their peer has reset are still being put away.
 */
const maxOpen = 512;
const now = (): number => performance.now();
/** Of sessions that nghttp2 has ended (ended-session.ts). */
const nodeTellsOfEnds = Number(process.versions.node.split('.')[0]) >= 22;

export class ConnectionTable {
  readonly #options: ConnectionTableOptions;
  readonly #addresses: AddressLimits;
  readonly #logger: SparseLogger;
  readonly #table = new Set<ConnectionEntry>();
  readonly #byAddress = new Map<AddressEntry, Set<ConnectionEntry>>();
  /** Found in one look through the table; the very idlest last. */
  #idlest: ConnectionEntry[] = [];
  #calls = 0;
  #onQuiet: (() => void) | undefined;
  readonly #sweeping: NodeJS.Timeout;

  constructor(options: ConnectionTableOptions) {
    this.#options = options;
    this.#logger = createSparseLogger(options.logger);
    this.#addresses = createAddressLimits({
      connections: options.maxConnectionsPerAddress,
      newPerSecond: options.newConnectionsPerAddress,
      now,
    });
    this.#sweeping = setInterval(() => this.#sweep(), sweepMs);
    this.#sweeping.unref();
  }

  get size(): number {
    return this.#table.size;
  }

  /** Calls that have no complete answer yet, of all connections. */
  get calls(): number {
    return this.#calls;
  }

  /** CONN-1 and CONN-2. Undefined: it was refused, and is closed. */
  admit(raw: Socket): ConnectionEntry | undefined {
    // Resets are everyday life; users of the socket hear of them by listeners of their own.
    raw.on('error', ignore);
    const { remoteAddress } = raw;
    // It is gone already.
    if (remoteAddress === undefined) return void raw.destroy();
    const addresses = this.#addresses;
    const addressEntry = this.#options.isTrusted(remoteAddress) ? undefined : addresses.of(remoteAddress);
    if (addressEntry !== undefined) {
      if (!addresses.takeToken(addressEntry)) return this.#refuse(raw, 'address_rate', addressEntry);
      if (
        addresses.isFull(addressEntry) &&
        !this.#makeRoom(findIdlest(this.#byAddress.get(addressEntry) ?? [], 1).pop())
      ) {
        return this.#refuse(raw, 'address_full', addressEntry);
      }
    }
    if (this.size >= this.#options.maxConnections && !this.#makeRoom(this.#nextIdlest())) {
      return this.#refuse(raw, 'full', addressEntry);
    }
    return this.#enter(raw, addressEntry);
  }

  /** A call begins. */
  begin(entry: ConnectionEntry): void {
    this.#calls++;
    entry.calls++;
    if (++entry.open > maxOpen) this.#punish(entry, 'resets');
    else if (entry.window.size === wideWindow) this.#options.windows.changed(entry);
  }

  /**
   * A call has ended.
   * @param answered else its peer reset it before
   * @param beganAt monotonic, ms; needed when it was not answered
   */
  finish(entry: ConnectionEntry, answered: boolean, beganAt = 0): void {
    if (--entry.open === 0) entry.idleSince = now();
    if (entry.window.size === wideWindow) this.#options.windows.changed(entry);
    if (answered) {
      entry.resets.answered();
    } else if (entry.address !== undefined) {
      const time = now();
      if (!entry.resets.reset(time - beganAt, time)) this.#punish(entry, 'resets');
    }
    if (--this.#calls === 0) this.#onQuiet?.();
  }

  /** The peer has sent headers that proxies send. */
  forwards(entry: ConnectionEntry): void {
    if (entry.address !== undefined) entry.address.forwards = true;
  }

  /** The peer has sent far more requests ahead than it may (CONN-4). */
  sentAhead(entry: ConnectionEntry): void {
    this.#punish(entry, 'pipelining');
  }

  /** Node has ended its HTTP/2 session for a flood of frames (CONN-4). */
  flooded(entry: ConnectionEntry): void {
    this.#remove(entry);
    this.#blame(entry, 'flood');
  }

  /** CONN-5. */
  endAll(reason: string, graceMs: number): void {
    for (const entry of this.#table) endGently(entry, reason, graceMs);
  }

  /** Resolves when no call is open, or after `ms`. */
  async quiet(ms: number): Promise<void> {
    if (this.#calls === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#onQuiet = () => {
        clearTimeout(timer);
        // The last answer may still be on its way to the socket.
        setImmediate(resolve);
      };
    });
  }

  /** Cuts what is left after `ms`. */
  async close(ms: number): Promise<void> {
    clearInterval(this.#sweeping);
    const until = now() + ms;
    while (this.size > 0 && now() < until) await new Promise((resolve) => setTimeout(resolve, 10));
    for (const entry of this.#table) destroy(entry);
  }

  #enter(raw: Socket, addressEntry: AddressEntry | undefined): ConnectionEntry {
    const { maxConnectionAge, grace } = this.#options;
    const entry = new ConnectionEntry(raw, addressEntry, now(), this.#onAbuse);
    this.#table.add(entry);
    if (addressEntry !== undefined) {
      this.#addresses.opened(addressEntry);
      const others = this.#byAddress.get(addressEntry);
      if (others === undefined) this.#byAddress.set(addressEntry, new Set([entry]));
      else others.add(entry);
    }
    const age = setTimeout(
      () => endGently(entry, 'This connection has reached its greatest age.', grace),
      maxConnectionAge * (0.9 + Math.random() * 0.2),
    );
    age.unref();
    raw.once('close', () => {
      clearTimeout(age);
      this.#remove(entry);
      // Handlers of streams that are still busy hear it from their own abort signal; others need not know.
    });
    return entry;
  }

  #remove(entry: ConnectionEntry): void {
    if (!this.#table.delete(entry)) return;
    entry.phase = 'gone';
    this.#options.windows.gone(entry);
    const { address } = entry;
    if (address === undefined) return;
    this.#addresses.closed(address);
    const others = this.#byAddress.get(address);
    others?.delete(entry);
    if (others?.size === 0) this.#byAddress.delete(address);
  }

  #refuse(raw: Socket, why: RefusedConnection, addressEntry: AddressEntry | undefined): undefined {
    this.#options.onRefused(why);
    // A reset leaves no state behind, neither here nor in the kernel.
    raw.resetAndDestroy();
    warnOfRefusal(this.#logger, this.#options, why, addressEntry);
    return undefined;
  }

  /** CONN-2. */
  #makeRoom(entry: ConnectionEntry | undefined): boolean {
    if (entry === undefined) return false;
    this.#remove(entry);
    this.#options.onEnded('made_room');
    letGo(entry);
    return true;
  }

  /** CONN-2, in all. One look through the table serves many newcomers, as long as those that it found stay idle. */
  #nextIdlest(): ConnectionEntry | undefined {
    for (let look = 0; look < 2; look++) {
      for (let entry = this.#idlest.pop(); entry !== undefined; entry = this.#idlest.pop()) {
        if (entry.open === 0 && entry.phase !== 'gone') return entry;
      }
      this.#idlest = findIdlest(this.#table, idlestAtOnce);
    }
    return undefined;
  }

  readonly #onAbuse = (entry: ConnectionEntry, why: SeenAbuse): void => this.#punish(entry, why);

  #sweep(): void {
    const time = now();
    for (const entry of this.#table) {
      if (hasEndedSession(entry, time)) {
        destroy(entry);
        continue;
      }
      if (entry.phase !== 'serving') continue;
      this.#options.windows.look(entry, time);
      const { payload, calls, cutShort, window } = entry;
      entry.tinyPieces = 0;
      const useful =
        entry.address === undefined ||
        entry.useless.look({ bytes: entry.bytesRead, payload, calls, cutShort, window: window.largest }, time);
      if (!useful) this.#punish(entry, 'useless_bytes');
      else if (entry.open === 0) this.#endIdle(entry, time - entry.idleSince);
    }
    this.#addresses.sweep();
  }

  /** CONN-3. What is still opening has time-outs of its own, which are shorter. */
  #endIdle(entry: ConnectionEntry, idleMs: number): void {
    const { firstCallTimeout, idleTimeout, onEnded } = this.#options;
    if (idleMs < (entry.calls === 0 ? firstCallTimeout : idleTimeout)) return;
    onEnded(entry.calls === 0 ? 'unused' : 'idle');
    entry.phase = 'ending';
    letGo(entry);
  }

  /**
   * ADDR-3. At once and without a word, so that what waits in their sockets is not even read: a thousand calls and their resets fit into one
   * read, and cost 50 ms. Refused calls cost less, and are counted by connection: where others have made too many, those of good standing stay.
   */
  #destroyAll(address: AddressEntry, why: EndedConnection): void {
    const time = now();
    for (const entry of this.#byAddress.get(address) ?? []) {
      if (why === 'refusals' && entry.isInGoodStanding(time)) continue;
      this.#options.onEnded('address_in_debt');
      this.#remove(entry);
      entry.raw.destroy();
    }
  }

  /** CONN-4. Not within a callback of the session: Node then puts it off, and nghttp2 may spin meanwhile (reset-stream.ts). */
  #punish(entry: ConnectionEntry, why: EndedConnection): void {
    if (entry.phase === 'gone') return;
    this.#remove(entry);
    this.#blame(entry, why);
    setImmediate(endWithCalm, entry);
  }

  #blame({ address }: ConnectionEntry, why: EndedConnection): void {
    this.#options.onEnded(why);
    this.#logger.warn({ address: address?.network, why }, 'connection ended: its peer abuses it');
    if (address !== undefined && this.#addresses.punish(address)) this.#destroyAll(address, why);
  }
}

/** The idlest of these that have no open call, the very idlest last. */
function findIdlest(connections: Iterable<ConnectionEntry>, max: number): ConnectionEntry[] {
  const found: ConnectionEntry[] = [];
  for (const entry of connections) {
    if (entry.open > 0) continue;
    const first = found[0];
    if (found.length === max && first !== undefined && !entry.yieldsBefore(first)) continue;
    let at = found.length;
    while (at > 0 && (found[at - 1] as ConnectionEntry).yieldsBefore(entry)) at--;
    found.splice(at, 0, entry);
    if (found.length > max) found.shift();
  }
  return found;
}

/** CONN-5. */
function endGently(entry: ConnectionEntry, reason: string, graceMs: number): void {
  if (entry.control.ending !== undefined || entry.phase === 'gone') return;
  entry.phase = 'ending';
  entry.control.end({ reason, graceMs });
  const { session, socket } = entry;
  // GOAWAY; the session closes itself after its last stream.
  if (session !== undefined) session.close();
  else if (socket.bytesRead === 0) socket.destroy();
  setTimeout(destroy, graceMs + lastWordsMs, entry).unref();
}

/** CONN-4. */
function endWithCalm(entry: ConnectionEntry): void {
  const { session } = entry;
  if (session?.destroyed === false) session.destroy(null as never, constants.NGHTTP2_ENHANCE_YOUR_CALM);
  setTimeout(destroy, session === undefined ? 0 : lastWordsMs, entry).unref();
}

/** nghttp2 has ended its session, and sent GOAWAY: nothing can be read or sent there any more. */
const hasEndedSession = (entry: ConnectionEntry, now: number): boolean =>
  !nodeTellsOfEnds &&
  entry.session?.destroyed === false &&
  entry.endedSession.look(
    entry.session,
    () => entry.socket.bytesRead,
    () => unsentBytes(entry),
    now,
  );

/**
 * What waits in the process for the peer to read. HTTP/2 writes below Node's sockets, whose own counts do not have it. Of TLS it is not
 * known: answers of open calls may wait.
 */
function unsentBytes({ raw, socket, open }: ConnectionEntry): number {
  if (socket !== raw) return open;
  return (raw as unknown as { _handle?: { writeQueueSize?: number } })._handle?.writeQueueSize ?? 0;
}

/** Ends a connection without a call: GOAWAY on HTTP/2, else the end of the stream of bytes. */
function letGo(entry: ConnectionEntry): void {
  const { session, socket, raw } = entry;
  if (entry.control.ending === undefined) entry.control.end({ reason: 'This connection was idle.', graceMs: 0 });
  if (session !== undefined) session.close();
  else if (entry.calls === 0) raw.destroy();
  else socket.end();
  setTimeout(destroy, lastWordsMs, entry).unref();
}

function destroy({ session, socket, raw }: ConnectionEntry): void {
  if (session !== undefined && !session.destroyed) session.destroy();
  socket.destroy();
  raw.destroy();
}

function warnOfRefusal(
  logger: SparseLogger,
  { maxConnections, maxConnectionsPerAddress, newConnectionsPerAddress }: ConnectionTableOptions,
  why: RefusedConnection,
  addressEntry: AddressEntry | undefined,
): void {
  if (why === 'full') {
    logger.warn({ maxConnections }, 'connection refused: all connections have open calls');
    return;
  }
  const { network, forwards } = addressEntry ?? {};
  const limit = why === 'address_full' ? { maxConnectionsPerAddress } : { newConnectionsPerAddress };
  // A balancer of TCP connections sends no headers. An attacker must not be trusted for a line that sounds like advice.
  logger.warn(
    { address: network, ...limit },
    forwards === true
      ? 'connection refused: its address, which sends headers of a proxy, is at its limit. If it is your proxy, name it with --trusted-proxies'
      : 'connection refused: its address is at its limit. Only if it is a proxy or load balancer of yours, name it with --trusted-proxies',
  );
}

function ignore(): void {}
