/**
 * Customers and their keys, in a JetStream KV bucket that every gateway watches.
 *
 * A key reads `slk_<key id>_<secret>`: the id is 12 characters of [0-9a-f] and may be shown and logged, the secret is 32
 * characters of [0-9A-Za-z_-] (192 random bits) and is shown once. The bucket holds one entry per key, named by the
 * key id, with the SHA-256 of the whole key; a fast hash is enough, because 192 random bits cannot be guessed.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { jetstreamManager } from '@nats-io/jetstream';
import type { KV, KvEntry } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/transport-node';
import { jittered } from './back-off.js';
import { installationReplicas, openBucket } from './buckets.js';
import { SluiceError, UsageError } from './errors.js';
import type { Logger } from './logger.js';
import { streamInfo } from './stream-info.js';
import { tenantIdPattern, tenantsBucket } from './subjects.js';
import { hasControls } from './terminal.js';

/** Who calls. */
export interface Caller {
  readonly tenant: string;
  readonly keyId: string;
}

/** One key as the bucket has it. */
export interface TenantRecord {
  readonly tenant: string;
  readonly keyId: string;
  /** SHA-256 of the key, hex. */
  readonly hash: string;
  /** For people: what the key is for. */
  readonly note: string;
  /** ISO 8601. */
  readonly createdAt: string;
  /** ISO 8601; unset while the key is valid. */
  readonly revokedAt?: string | undefined;
}

export interface TenantDirectory {
  /** From the authorization header. @throws SluiceError key_missing | key_unknown */
  lookup(authorization: string | null | undefined): Caller;
  /** Called with the key id when a key stops being valid. Returns the un-subscriber. */
  onRevoked(listener: (keyId: string) => void): () => void;
  /** The first full copy has arrived. */
  readonly ready: boolean;
  /** Look-ups answered by the cache of headers, and those that had to hash. */
  stats(): { hits: number; misses: number };
  close(): Promise<void>;
}

/** Why `lookup` failed: the caller has no valid key, and not: the gateway does not know yet. */
export const isStrangers = (reason: unknown): boolean =>
  reason instanceof SluiceError && (reason.code === 'key_missing' || reason.code === 'key_unknown');

const keyPattern = /^slk_([0-9a-f]{12})_[0-9A-Za-z_-]{32}$/;
const header = /^Bearer +(\S+) *$/i;
/** A header longer than this is refused unread. */
const maxHeaderChars = 256;
/** Headers remembered with their caller; past it the oldest goes. */
const maxCachedHeaders = 10_000;
const maxNoteChars = 256;
/** How often the copy is compared with the bucket, and how long a full copy may take, ms. */
const lookMs = 2_000;
const copyWithinMs = 5_000;
/** How soon a copy that failed is tried again, ms. */
const againMs = 500;

function ownCopy(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}

const hashOf = (key: string): Buffer => createHash('sha256').update(key).digest();

async function bucket(nc: NatsConnection, replicas: number, logger?: Logger): Promise<KV> {
  return openBucket(nc, tenantsBucket, {
    replicas,
    onFewer: (name, has, error) =>
      logger?.warn({ bucket: name, has, error: String(error) }, 'the bucket has fewer replicas'),
    history: 1,
    description: 'Sluice tenants and their hashed keys',
  });
}

/** Makes sure that there is a place for keys. @param replicas JetStream replicas, at least */
export async function ensureTenants(nc: NatsConnection, replicas: number, logger: Logger): Promise<void> {
  await bucket(nc, replicas, logger);
}

const bucketForTools = async (nc: NatsConnection): Promise<KV> => bucket(nc, await installationReplicas(nc));

function recordOf(entry: KvEntry): TenantRecord | undefined {
  if (entry.operation !== 'PUT') return undefined;
  const record = entry.json<Partial<TenantRecord>>();
  return typeof record.tenant === 'string' && typeof record.hash === 'string' && tenantIdPattern.test(record.tenant)
    ? ({ note: '', createdAt: '', ...record, keyId: entry.key } as TenantRecord)
    : undefined;
}

/**
 * A live copy of the bucket. While NATS is away the last known copy serves; the watch goes on by itself afterwards.
 * Resolves when the first full copy has arrived.
 * @param replicas JetStream replicas of the bucket, at least
 */
export async function watchTenants(nc: NatsConnection, logger: Logger, replicas = 1): Promise<TenantDirectory> {
  const keys = createActiveKeys(logger);
  const headers = createHeaderCache(keys);
  const kv = await bucket(nc, replicas, logger);
  const jsm = await jetstreamManager(nc, { checkAPI: false });
  const stream = (await kv.status()).streamInfo.config.name;
  const copy = createBucketCopy({ kv, keys, logger, state: async () => (await streamInfo(jsm, stream)).state });
  await copy.first(nc);
  let looking: Promise<void> | undefined;
  const timer = setInterval(() => {
    looking ??= copy
      .look()
      // NATS is away, or a leader is being elected.
      .catch((error: unknown) => logger.debug({ error: String(error) }, 'cannot look at the tenants bucket'))
      .finally(() => {
        looking = undefined;
      });
  }, lookMs);

  return {
    ready: true,
    lookup: headers.lookup,
    onRevoked(listener) {
      keys.listeners.add(listener);
      return () => keys.listeners.delete(listener);
    },
    stats: headers.stats,
    async close() {
      clearInterval(timer);
      copy.close();
      await looking;
    },
  };
}

/** The keys that are valid. */
interface ActiveKeys {
  get(keyId: string): { readonly caller: Caller; readonly hash: Buffer } | undefined;
  ids(): Iterable<string>;
  apply(entry: KvEntry): void;
  forget(keyId: string): void;
  /** Called with the id of a key that has stopped being valid. */
  readonly listeners: Set<(keyId: string) => void>;
}

function createActiveKeys(logger: Logger): ActiveKeys {
  const active = new Map<string, { caller: Caller; hash: Buffer }>();
  const listeners = new Set<(keyId: string) => void>();

  const forget = (keyId: string): void => {
    if (!active.delete(keyId)) return;
    for (const listener of listeners) listener(keyId);
  };
  const readable = (entry: KvEntry): TenantRecord | undefined => {
    try {
      return recordOf(entry);
    } catch (error) {
      logger.warn(
        { keyId: entry.key, err: error },
        'an entry of the tenants bucket is not readable; its key is refused',
      );
      return undefined;
    }
  };
  return {
    get: (keyId) => active.get(keyId),
    ids: () => active.keys(),
    apply(entry) {
      const record = readable(entry);
      if (record === undefined || record.revokedAt !== undefined) {
        forget(entry.key);
        return;
      }
      const known = active.get(entry.key);
      // Memory of its own: a piece of Node's pool would keep up to 64 KiB alive for as long as the key is known.
      const hash = ownCopy(Buffer.from(record.hash, 'hex'));
      // A key id that is given another key or another tenant ends what the old one opened.
      if (known !== undefined && (known.caller.tenant !== record.tenant || !known.hash.equals(hash))) forget(entry.key);
      active.set(entry.key, { caller: Object.freeze({ tenant: record.tenant, keyId: entry.key }), hash });
    },
    forget,
    listeners,
  };
}

/** Look-ups by authorization header, the latest of which are remembered until their keys stop being valid. */
function createHeaderCache(keys: ActiveKeys): Pick<TenantDirectory, 'lookup' | 'stats'> {
  const cache = new Map<string, Caller>();
  let hits = 0;
  let misses = 0;
  keys.listeners.add((keyId) => {
    for (const [text, caller] of cache) {
      if (caller.keyId === keyId) cache.delete(text);
    }
  });
  return {
    lookup(authorization) {
      if (authorization === null || authorization === undefined || authorization === '') {
        throw new SluiceError('key_missing', 'no authorization header');
      }
      const cached = cache.get(authorization);
      if (cached !== undefined) {
        hits++;
        return cached;
      }
      misses++;
      if (authorization.length > maxHeaderChars)
        throw new SluiceError('key_unknown', 'the authorization header is too long');
      const key = header.exec(authorization)?.[1];
      if (key === undefined) throw new SluiceError('key_missing', 'the authorization header is not "Bearer <key>"');
      const keyId = keyPattern.exec(key)?.[1];
      const known = keyId === undefined ? undefined : keys.get(keyId);
      if (known === undefined || !timingSafeEqual(known.hash, hashOf(key))) {
        throw new SluiceError('key_unknown', 'the key is not known, or was revoked');
      }
      if (cache.size >= maxCachedHeaders) cache.delete(cache.keys().next().value as string);
      cache.set(authorization, known.caller);
      return known.caller;
    },
    stats: () => ({ hits, misses }),
  };
}

interface BucketCopyOptions {
  readonly kv: KV;
  /** What the bucket holds goes there. */
  readonly keys: ActiveKeys;
  /** Of the stream behind the bucket. */
  readonly state: () => Promise<{ readonly last_seq: number; readonly messages: number }>;
  readonly logger: Logger;
}

interface BucketCopy {
  /** Resolves when a full copy has arrived. @throws Error the connection was closed before */
  first(nc: NatsConnection): Promise<void>;
  /**
   * The library's watch goes on by itself after most troubles, but not after all of them, and never says so: the consumer
   * behind it lives on one of the log's servers. So the bucket's last revision is compared with the copy's.
   */
  look(): Promise<void>;
  close(): void;
}

function createBucketCopy({ kv, keys, state, logger }: BucketCopyOptions): BucketCopy {
  /** Last revision of the bucket that is in the copy. */
  let seen = 0;
  let watch: Awaited<ReturnType<KV['watch']>> | undefined;
  /** How often in a row the copy was found to be older than the bucket. */
  let behind = 0;
  let closed = false;

  /** Opens a watch in the place of the last one. Resolves when a full copy has arrived. */
  const follow = async (): Promise<void> => {
    watch?.stop();
    seen = 0;
    const mine = await kv.watch();
    watch = mine;
    // Entries come in the order of their revisions, so with this one everything has come that was there.
    const { last_seq: last, messages } = await state();
    const found = new Set<string>();
    await new Promise<void>((resolve, reject) => {
      let complete = false;
      const finish = (): void => {
        complete = true;
        seen = Math.max(seen, last);
        for (const keyId of keys.ids()) if (!found.has(keyId)) keys.forget(keyId);
        resolve();
      };
      if (messages === 0) finish();
      (async () => {
        for await (const entry of mine) {
          if (mine !== watch) return;
          keys.apply(entry);
          seen = Math.max(seen, entry.revision);
          if (complete) continue;
          found.add(entry.key);
          if (entry.revision >= last || entry.delta === 0) finish();
        }
        throw new Error('the watch on the tenants bucket ended');
      })().catch(reject);
      // Another look follows.
      setTimeout(() => reject(new Error('the tenants bucket delivers nothing')), copyWithinMs).unref();
    });
  };

  return {
    async first(nc) {
      for (;;) {
        try {
          return await follow();
        } catch (error) {
          if (nc.isClosed()) throw error;
          logger.warn({ error: String(error) }, 'cannot read the keys yet');
          // While a leader is elected the answer comes at once, and each try makes a consumer.
          await new Promise((resolve) => setTimeout(resolve, jittered(againMs)));
        }
      }
    },
    async look() {
      const { last_seq: last } = await state();
      behind = last === seen ? 0 : behind + 1;
      if (behind < 2 || closed) return;
      behind = 0;
      logger.warn({ seen, last }, 'the watch on the tenants bucket has fallen behind; reading all keys again');
      await follow();
    },
    close() {
      closed = true;
      watch?.stop();
    },
  };
}

/**
 * Makes a key. The answer is the only place where the key stands in full.
 * @throws UsageError when the tenant's name is not one
 */
export async function addTenant(
  nc: NatsConnection,
  options: { readonly tenant: string; readonly note?: string },
): Promise<{ tenant: string; keyId: string; key: string }> {
  if (!tenantIdPattern.test(options.tenant)) {
    throw new UsageError(
      `"${options.tenant}" is not a tenant id: 1 to 63 of a-z, 0-9 and -, neither first nor last a -, e.g. "acme-shop".`,
    );
  }
  if (hasControls(options.note ?? '')) {
    throw new UsageError('The note has control characters: give it as plain text on one line.');
  }
  if ((options.note ?? '').length > maxNoteChars)
    throw new UsageError(`A note has at most ${maxNoteChars} characters.`);
  const keyId = randomBytes(6).toString('hex');
  const key = `slk_${keyId}_${randomBytes(24).toString('base64url')}`;
  const record: TenantRecord = {
    tenant: options.tenant,
    keyId,
    hash: hashOf(key).toString('hex'),
    note: options.note ?? '',
    createdAt: new Date().toISOString(),
  };
  const kv = await bucketForTools(nc);
  await kv.create(keyId, JSON.stringify(record));
  return { tenant: options.tenant, keyId, key };
}

/** Every key, by tenant and age, the revoked ones too. */
export async function listTenants(nc: NatsConnection): Promise<TenantRecord[]> {
  const kv = await bucketForTools(nc);
  const records: TenantRecord[] = [];
  const ids: string[] = [];
  for await (const keyId of await kv.keys()) ids.push(keyId);
  for (const keyId of ids) {
    const entry = await kv.get(keyId);
    const record = entry === null ? undefined : recordOf(entry);
    if (record !== undefined) records.push(record);
  }
  return records.sort((a, b) => a.tenant.localeCompare(b.tenant) || a.createdAt.localeCompare(b.createdAt));
}

/**
 * Ends a key everywhere within a second. It stays listed, and never works again.
 * @throws UsageError when there is no such key
 */
export async function revokeKey(nc: NatsConnection, keyId: string): Promise<void> {
  const kv = await bucketForTools(nc);
  const entry = /^[0-9a-f]{12}$/.test(keyId) ? await kv.get(keyId) : null;
  const record = entry === null ? undefined : recordOf(entry);
  if (entry === null || record === undefined) {
    throw new UsageError(`There is no key "${keyId}"; \`sluice tenant list\` shows the ids.`);
  }
  if (record.revokedAt !== undefined) return;
  await kv.put(keyId, JSON.stringify({ ...record, revokedAt: new Date().toISOString() }));
}
