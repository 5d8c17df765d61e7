/**
 * How many connections an address may have, and how many new ones a second. Pure: the clock is the caller's.
 *
 *   ADDR-1  An IPv4 address counts for itself, also when it is mapped into IPv6. IPv6 counts by /64, the least that a host is given.
 *   ADDR-2  A new connection takes a token. Tokens come back at `newPerSecond`, up to `burstSeconds` of them.
 *   ADDR-3  A connection that ends for abuse costs its address the tokens of two seconds, the next one of four, then eight. An address
 *       in debt gets no new connection, and loses those that it has. When its offence are refused calls, connections that have lately
 *       shown a valid key stay. The debt is at most `maxDebtSeconds`.
 *   ADDR-4  Refused calls count for the address too. Otherwise it could repeat on many connections what one connection may do.
 *   ADDR-5  An address is forgotten when it has no connection and all of its tokens. Beyond `maxAbsent` addresses without a
 *       connection the oldest is forgotten, so the table has at most one entry for each connection, and so many more.
 */
import { isIPv4 } from 'node:net';
import { CallBudget } from './call-budget.js';

export interface AddressLimitsOptions {
  /** 0: no limit. */
  readonly connections: number;
  /** 0: no limit. */
  readonly newPerSecond: number;
  /** Monotonic, ms. */
  readonly now: () => number;
}

/** What is known of an address. */
export interface AddressEntry {
  readonly network: string;
  connections: number;
  /** Below 0: debt. */
  tokens: number;
  /** When `tokens` was true. */
  at: number;
  /** Connections that ended for abuse, since it had all of its tokens. */
  offences: number;
  /** It has sent headers of a proxy. */
  forwards: boolean;
  /** ADDR-4. Undefined: no limit. */
  readonly refusals: CallBudget | undefined;
}

export interface AddressLimits {
  /** Entries now. */
  readonly size: number;
  /** The entry of this address; to be asked once for each new connection. */
  of(address: string): AddressEntry;
  /** ADDR-2. False: too many new ones, and nothing is taken. */
  takeToken(entry: AddressEntry): boolean;
  /** All that it may have are there. */
  isFull(entry: AddressEntry): boolean;
  opened(entry: AddressEntry): void;
  closed(entry: AddressEntry): void;
  /** ADDR-3. True: it is in debt. */
  punish(entry: AddressEntry): boolean;
  /** ADDR-5; to be called now and then. */
  sweep(): void;
}

export const burstSeconds = 4;
export const maxDebtSeconds = 30;
const maxAbsent = 16_384;
/** Of calls by all of its connections. They cost a few hundred ms of CPU at once, and 30 ms a second. */
const refusalsOfAddress = { max: 1_000, backPerSecond: 100 };

export function createAddressLimits({ connections, newPerSecond, now }: AddressLimitsOptions): AddressLimits {
  const entries = new Map<string, AddressEntry>();
  /** Those without a connection, oldest first. */
  const absent = new Set<AddressEntry>();
  const max = newPerSecond * burstSeconds;

  const refill = (entry: AddressEntry): void => {
    const time = now();
    entry.tokens = Math.min(max, entry.tokens + ((time - entry.at) / 1_000) * newPerSecond);
    entry.at = time;
    if (entry.tokens === max) entry.offences = 0;
  };
  const forget = (entry: AddressEntry): void => {
    absent.delete(entry);
    entries.delete(entry.network);
  };
  /** To the end of the queue of those that may be forgotten. */
  const leave = (entry: AddressEntry): void => {
    absent.add(entry);
    if (absent.size <= maxAbsent) return;
    const [oldest] = absent;
    if (oldest !== undefined) forget(oldest);
  };

  return {
    get size() {
      return entries.size;
    },
    of(address) {
      const network = networkOf(address);
      let entry = entries.get(network);
      if (entry !== undefined) return entry;
      const refusals = newPerSecond === 0 ? undefined : new CallBudget(refusalsOfAddress, now());
      entry = { network, connections: 0, tokens: max, at: now(), offences: 0, forwards: false, refusals };
      entries.set(network, entry);
      leave(entry);
      return entry;
    },
    takeToken(entry) {
      if (newPerSecond === 0) return true;
      refill(entry);
      if (entry.tokens < 1) return false;
      entry.tokens--;
      return true;
    },
    isFull: (entry) => connections > 0 && entry.connections >= connections,
    opened(entry) {
      entry.connections++;
      absent.delete(entry);
    },
    closed(entry) {
      if (--entry.connections === 0) leave(entry);
    },
    punish(entry) {
      if (newPerSecond === 0) return false;
      refill(entry);
      entry.offences++;
      const cost = newPerSecond * Math.min(maxDebtSeconds, 2 ** entry.offences);
      entry.tokens = Math.max(-maxDebtSeconds * newPerSecond, entry.tokens - cost);
      return entry.tokens < 0;
    },
    sweep() {
      for (const entry of absent) {
        refill(entry);
        if (entry.tokens >= max) forget(entry);
      }
    },
  };
}

/** What an address counts for (ADDR-1): itself, or the first 64 bits of an IPv6 address, in one spelling. */
export function networkOf(address: string): string {
  if (isIPv4(address)) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  const [head = '', tail] = address.replace(/%.*$/, '').split('::');
  const groups = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const last = tail === '' ? [] : tail.split(':');
    // An address may end in the form of an IPv4 address, which is two groups.
    const missing = 8 - groups.length - last.length - (tail.includes('.') ? 1 : 0);
    groups.push(...Array<string>(Math.max(0, missing)).fill('0'), ...last);
  }
  const first = groups.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16));
  return `${first.join(':')}::/64`;
}
