/**
 * Names in NATS: streams, subjects, buckets. No other file spells them out.
 */

/** Tenant ids: they are a token of a NATS subject and a part of every key. */
export const tenantIdPattern = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** Users of nats-server (deploy/nats.conf): `admin` is who runs commands. */
export type NatsUser = 'gateway' | 'worker' | 'admin';

/** First token of the subjects that answers to a user come to: no other user may listen there. */
export const inboxPrefix = (user: NatsUser): string => `_INBOX_${user}`;

/** The stream of one shard. */
export const shardStream = (shard: number): string => `EV_${shard}`;

/** Where `sluice shards mend` keeps what it is about to publish again, of a shard's stream (workers/ledger/shard-mend.ts). */
export const keptStream = (shard: number): string => `KEPT_${shard}`;
export const keptSubject = (shard: number, tenant: string): string => `kept.${shard}.${tenant}`;

/** The shard of a stream that a mend keeps; undefined when it is none. */
export function shardOfKept(name: string): number | undefined {
  const digits = /^KEPT_(0|[1-9]\d{0,3})$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** The shard whose stream has this name; undefined when it is none. */
export function shardOfStream(name: string): number | undefined {
  const digits = /^EV_(0|[1-9]\d{0,3})$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** A shard's token of its subjects; since the first change of the number of shards it names the epoch too (shard-setting.ts). */
const shardToken = (shard: number, epoch: number): string => (epoch === 1 ? `${shard}` : `${shard}-${epoch}`);

/** All subjects of one shard: what its stream listens to. */
export const shardSubjects = (shard: number, epoch = 1): string => `ev.${shardToken(shard, epoch)}.>`;

/** The epoch whose subjects of the shard are among these; the newest. Undefined when none are. */
export function epochOf(shard: number, subjects: readonly string[]): number | undefined {
  const epochs = subjects.flatMap((subject) => {
    const [, of, epoch = '1'] = /^ev\.(\d+)(?:-(\d+))?\.>$/.exec(subject) ?? [];
    return of === String(shard) ? [Number(epoch)] : [];
  });
  return epochs.length === 0 ? undefined : Math.max(...epochs);
}

/** Where batches of a tenant go in a shard. */
export const batchSubject = (shard: number, tenant: string, epoch = 1): string =>
  `ev.${shardToken(shard, epoch)}.${tenant}`;

/** What a shard's stream listens to while it takes no batches: no gateway publishes there. */
export const parkedSubject = (shard: number): string => `sluice.parked.${shard}`;

/** The KV bucket of tenants and their hashed keys. */
export const tenantsBucket = 'sluice_tenants';

/** The KV bucket of settings that the whole installation shares: the number of shards. */
export const settingsBucket = 'sluice_settings';

/** The KV bucket in which live workers say that they live; entries expire. */
export const workersBucket = 'sluice_workers';

/** Where a worker answers that it is there: the server answers at once when no subscriber listens any more. */
export const workerAliveSubject = (worker: string): string => `sluice.worker.${worker}`;

/** Where workers say how far a shard is in ClickHouse: JSON `{generation, sequence}`. A hint, not kept. */
export const committedSubject = (shard: number): string => `sluice.committed.${shard}`;

/** The same of all shards. */
export const committedSubjects = 'sluice.committed.*';

/** Where `sluice shards` asks all workers which shards they load, and which of them stand still (workers/loader/shard-waits.ts). */
export const shardWaitsSubject = 'sluice.shards.waits';

/** Where JetStream says that a stream has another leader; the stream's name comes last. */
export const leaderSubject = (stream: string): string => `$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.${stream}`;

/** Where gateways ask what became of a batch (batch-status.ts), and the group of those who answer. */
export const batchStatusSubject = 'sluice.batch-status';
export const batchStatusQueue = 'workers';

/** The stream of dead letters: batches that ClickHouse refuses. */
export const deadStream = 'DEAD';

/** Everything that is put there. */
export const deadSubjects = 'dead.>';

/** Where a shard's dead letters of a tenant go; `_` stands for bytes that name no tenant. */
export const deadSubject = (shard: number, tenant: string): string =>
  `dead.${shard}.${tenantIdPattern.test(tenant) ? tenant : '_'}`;
