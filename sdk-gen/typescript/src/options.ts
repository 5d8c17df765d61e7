/** The options of a client, and their defaults. */
import { createSecureContext } from 'node:tls';
import type { Event } from '../gen/sluice/event/v1/event_pb.js';
import type { Clock } from './clock.js';
import type { Durability, EventRejection } from './delivery.js';
import type { FailureCode, SluiceClientError } from './errors.js';

/** Events that are finally refused: sending them again unchanged will not help. */
export interface Rejected {
  /** Empty when the events never made it into a batch. */
  readonly batchId: string;
  /** How many. */
  readonly events: number;
  /** Why: `invalid_argument` when the gateway refused events of a batch and took the others. */
  readonly code: FailureCode;
  readonly message: string;
  /** The first 100 events at fault, where the gateway named them. */
  readonly rejections: readonly (EventRejection & { readonly event: Event | undefined })[];
}

/** For an https:// address, as PEM. */
export interface ClientTls {
  /** Authorities that may have signed the gateway's certificate. @default those that Node knows */
  readonly ca?: string | Buffer;
  /** The client's certificate and its key, for a gateway that asks for one (`--tls-client-ca`); both or none. */
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
}

export interface SluiceClientOptions {
  /** Address of the gateway, e.g. "http://127.0.0.1:7070" or "https://events.example.com". */
  baseUrl: string;
  /** The tenant's key, as `sluice tenant add` prints it. */
  key: string;
  /** Whom to trust, and what to show, over TLS. @default Node's authorities, and no certificate */
  tls?: ClientTls;
  /**
   * When an event counts as delivered, and is forgotten: `accepted`, when the log has it; `committed`, when ClickHouse has
   * it, so that a log which loses its end costs nothing. See docs/client.md. @default 'accepted'
   */
  durability?: Durability;
  /** A batch is closed at about this many bytes. @default 262144 (256 KiB) */
  batchBytes?: number;
  /**
   * A batch is closed at this many events while the gateway keeps up. While it does not, a batch grows on to `batchBytes`, and never
   * beyond what the gateway takes. @default 2000
   */
  batchEvents?: number;
  /** A batch is sent at this age at the latest while the gateway keeps up, ms. @default 50 */
  lingerMs?: number;
  /** Most encoded bytes kept, sent and unsent, until they are delivered. @default 33554432 (32 MiB) */
  maxBufferBytes?: number;
  /** Most batches sent and not answered. @default 32 */
  maxBatchesInFlight?: number;
  /** Most bytes sent and not answered; the gateway's own limit is held as well. @default 4194304 (4 MiB) */
  maxBytesInFlight?: number;
  /** Ceiling of the first random wait after a failure, ms; it doubles with each failure in a row. @default 100 */
  retryBaseMs?: number;
  /** Most that the ceiling grows to, ms. @default 5000 */
  retryCapMs?: number;
  /** A batch without an answer for so long is sent again on another connection, ms. @default 60000 */
  ackTimeoutMs?: number;
  /**
   * With durability `committed`: a batch that was accepted and not committed for so long is sent again on another
   * connection, ms; the time doubles, up to 16 times, as long as that does not help. @default 300000 (5 min)
   */
  commitTimeoutMs?: number;
  /** A connection that is not ready after so long is given up, ms. @default 10000 */
  connectTimeoutMs?: number;
  /** How long a refused key is tried again before what waits is finally refused, ms. @default 3000 */
  refusalGraceMs?: number;
  /** Called for events that are finally refused: once per batch, or per event that never made it into one. */
  onRejected?: (rejected: Rejected) => void;
  /** Called for trouble with the connection. The client keeps trying. */
  onError?: (error: SluiceClientError) => void;
  /** Time, for tests. */
  clock?: Clock;
  /** Dice in [0, 1), for tests. */
  random?: () => number;
}

export interface ResolvedOptions
  extends Required<Omit<SluiceClientOptions, 'onRejected' | 'onError' | 'clock' | 'random' | 'tls'>> {
  readonly tls: ClientTls | undefined;
}

const KiB = 1024;

const numbers = {
  batchBytes: { def: 256 * KiB, min: 1, max: 8 * KiB * KiB },
  batchEvents: { def: 2_000, min: 1, max: 1_000_000 },
  lingerMs: { def: 50, min: 0, max: 3_600_000 },
  maxBufferBytes: { def: 32 * KiB * KiB, min: 64 * KiB, max: 1024 * KiB * KiB },
  maxBatchesInFlight: { def: 32, min: 1, max: 1024 },
  maxBytesInFlight: { def: 4 * KiB * KiB, min: 1, max: 1024 * KiB * KiB },
  retryBaseMs: { def: 100, min: 1, max: 60_000 },
  retryCapMs: { def: 5_000, min: 1, max: 300_000 },
  ackTimeoutMs: { def: 60_000, min: 100, max: 3_600_000 },
  commitTimeoutMs: { def: 300_000, min: 1_000, max: 86_400_000 },
  connectTimeoutMs: { def: 10_000, min: 100, max: 600_000 },
  refusalGraceMs: { def: 3_000, min: 0, max: 600_000 },
} as const;

/** @throws TypeError that names the option at fault */
export function resolveClientOptions(options: SluiceClientOptions): ResolvedOptions {
  const { key } = options;
  const baseUrl = parseUrl(options.baseUrl);
  // What fetch would refuse as a header, said in our words and without showing the key.
  if (typeof key !== 'string' || !/^[\x21-\x7e]+$/.test(key)) {
    throw new TypeError('key: give the key of a tenant, as `sluice tenant add` prints it, without spaces');
  }
  const { durability = 'accepted' } = options;
  if (durability !== 'accepted' && durability !== 'committed') {
    throw new TypeError("durability: give 'accepted' or 'committed'");
  }
  const resolved: Record<string, unknown> = { baseUrl, key, durability, tls: checkedTls(options.tls, baseUrl) };
  for (const [name, { def, min, max }] of Object.entries(numbers)) {
    const value = options[name as keyof typeof numbers] ?? def;
    if (typeof value !== 'number' || !(value >= min && value <= max)) {
      throw new TypeError(`${name}: give a number from ${min} to ${max}`);
    }
    resolved[name] = value;
  }
  return resolved as unknown as ResolvedOptions;
}

function checkedTls(tls: ClientTls | undefined, baseUrl: string): ClientTls | undefined {
  if (tls === undefined) return undefined;
  if (!baseUrl.startsWith('https:')) throw new TypeError('tls: the baseUrl has no TLS; begin it with "https://"');
  const { ca, cert, key } = tls;
  if ((cert === undefined) !== (key === undefined)) throw new TypeError('tls: give cert and key, or neither');
  const used = { ...(ca === undefined ? {} : { ca }), ...(cert === undefined ? {} : { cert, key }) } as ClientTls;
  try {
    createSecureContext(used);
  } catch (error) {
    // Not the text of the key.
    throw new TypeError(`tls: these are not PEM texts that fit each other (${(error as NodeJS.ErrnoException).code})`);
  }
  return used;
}

function parseUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new TypeError('baseUrl: give the address of the gateway, such as "http://127.0.0.1:7070"');
  }
  // Errors show the address.
  if (url.username !== '' || url.password !== '') {
    throw new TypeError('baseUrl: leave user and password out; the key goes into the option `key`');
  }
  if (url.search !== '' || url.hash !== '') throw new TypeError('baseUrl: leave out what follows "?" or "#"');
  return url.href.replace(/[?#]*$/, '').replace(/\/$/, '');
}
