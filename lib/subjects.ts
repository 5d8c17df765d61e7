/**
 * Names in NATS: streams, subjects, buckets. Nobody else spells them out.
 */

/** Tenant ids: they are a token of a NATS subject and a part of every key. */
export const tenantIdPattern = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** The stream of one shard. */
export const shardStream = (shard: number): string => `EV_${shard}`;

/** A shard's token of its subjects; since the first change of the number of shards it names the epoch too (shard-setting.ts). */
const shardToken = (shard: number, epoch: number): string => (epoch === 1 ? `${shard}` : `${shard}-${epoch}`);

/** All subjects of one shard: what its stream listens to. */
export const shardSubjects = (shard: number, epoch = 1): string => `ev.${shardToken(shard, epoch)}.>`;

/** Where batches of a tenant go in a shard. */
export const batchSubject = (shard: number, tenant: string, epoch = 1): string =>
  `ev.${shardToken(shard, epoch)}.${tenant}`;

/** What a shard's stream listens to while it takes no batches: nobody publishes there. */
export const parkedSubject = (shard: number): string => `sluice.parked.${shard}`;

/** The KV bucket of tenants and their hashed keys. */
export const tenantsBucket = 'sluice_tenants';

/** The KV bucket of settings that the whole installation shares: the number of shards. */
export const settingsBucket = 'sluice_settings';

/** The KV bucket in which live workers say that they live; entries expire. */
export const workersBucket = 'sluice_workers';

/** Where a worker answers that it is there: who asks learns from the server at once when nobody listens any more. */
export const workerAliveSubject = (worker: string): string => `sluice.worker.${worker}`;

/** Where workers say how far a shard is in the warehouse: JSON `{generation, sequence}`. A hint, not kept. */
export const committedSubject = (shard: number): string => `sluice.committed.${shard}`;

/** The same of all shards. */
export const committedSubjects = 'sluice.committed.*';

/** Where JetStream says that a stream has another leader; the stream's name comes last. */
export const leaderSubject = (stream: string): string => `$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.${stream}`;

/** Where gateways ask what became of a batch (batch-status.ts), and the group of those who answer. */
export const batchStatusSubject = 'sluice.batch-status';
export const batchStatusQueue = 'workers';

/** The stream of dead letters: batches that the warehouse refuses. */
export const deadStream = 'DEAD';

/** Everything that is put there. */
export const deadSubjects = 'dead.>';

/** Where a shard's dead letters of a tenant go; `_` stands for bytes that name no tenant. */
export const deadSubject = (shard: number, tenant: string): string =>
  `dead.${shard}.${tenantIdPattern.test(tenant) ? tenant : '_'}`;
