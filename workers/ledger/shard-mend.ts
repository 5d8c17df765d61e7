/**
 * `sluice shards mend <shard>` brings what a stream holds and no worker may load into ClickHouse; then the shard continues. It is for a
 * stream that went backwards or lost its end, one that was made again with messages that may be stored, and one beyond the number of
 * shards.
 *
 *   MEND-1  The stream takes no batches meanwhile: it listens to no subject of its shard (SHARD-3 in shards.ts).
 *   MEND-2  Messages that ClickHouse does not have are copied to the stream KEPT_<shard> first. Those are the ones that no block
 *      covers, and those that the log took after the last message of the block that covers them (`_hi_at`).
 *   MEND-3  Then the stream is removed and made again. What it holds from then on is new and accepted: it comes as retries, or from
 *       gateways.
 *   MEND-4  The copies are published as retries: the loader leaves out what is stored, in whatever shard (LOAD-5). KEPT_<shard> is removed
 *      when the log has acknowledged all of them.
 *   MEND-5  Each step may be done twice. A mend that was interrupted is finished by the next one.
 */
import { type JetStreamManager, jetstream, type StreamInfo } from '@nats-io/jetstream';
import { headers, type NatsConnection } from '@nats-io/nats-core';
import { UsageError } from '../../lib/errors.js';
import { isStreamMissing } from '../../lib/jetstream-errors.js';
import { ensureStream, generationOf } from '../../lib/log-streams.js';
import type { Logger } from '../../lib/logger.js';
import { markRetried } from '../../lib/retried-copy.js';
import type { ShardSetting } from '../../lib/shard-setting.js';
import { streamInfo } from '../../lib/stream-info.js';
import {
  batchSubject,
  keptStream,
  keptSubject,
  parkedSubject,
  shardStream,
  shardSubjects,
  tenantIdPattern,
} from '../../lib/subjects.js';
import { eachFrame, tenantIn } from '../loader/frames.js';
import type { ShardState } from '../loader/loader.js';
import { scanLog } from '../loader/log-scan.js';
import { acceptKey } from '../loader/shard.js';
import { isAnother } from '../reader/end.js';
import type { LedgerStore } from './ledger-store.js';
import { type ShardLook, shardStatus, stateOf } from './shard-states.js';
import { relisten } from './shards.js';

export interface MendOptions {
  readonly nc: NatsConnection;
  readonly look: ShardLook;
  readonly ledger: Pick<LedgerStore, 'groups' | 'blocks'>;
  /** The number of shards. */
  readonly number: ShardSetting;
  /** A line for people, at each step. */
  readonly say: (text: string) => void;
  /** How far a step is, often. */
  readonly progress: (text: string) => void;
  readonly logger: Logger;
}

export interface Mended {
  /** Messages that were published again. */
  readonly messages: number;
}

/** What was published before a stream stopped to listen may still be on its way through the server. */
const settleMs = 1_000;
const publishesAtOnce = 32;
const ackMs = 20_000;
const limitWord = 'max_bytes of the stream: ';
const sequenceHeader = 'Sluice-Sequence';
const generationHeader = 'Sluice-Generation';

/**
 * Mends one shard. Rejects when log or ClickHouse cannot be reached; what was kept stays, and the next run goes on.
 * @throws UsageError when there is nothing to mend, or it cannot be
 */
export async function mendShard(options: MendOptions, shard: number): Promise<Mended> {
  const { look, number, say } = options;
  const { jsm } = look;
  const stream = shardStream(shard);
  const status = await shardStatus(look, shard, number);
  const info = await streamInfo(jsm, stream).catch(missing);
  const kept = await streamInfo(jsm, keptStream(shard)).catch(missing);
  const parked = info?.config.subjects?.includes(parkedSubject(shard)) === true && shard < number.shards;
  if (info === undefined && kept === undefined) throw new UsageError(`There is no stream ${stream}.`);
  if (status.stopped === undefined && kept === undefined && !parked) {
    throw new UsageError(`Shard ${shard} needs no mending: its stream may be loaded.`);
  }
  // Killed between removing the stream and making it again.
  if (info === undefined) await madeAgain(options, shard);
  else if (status.stopped !== undefined) await emptied(options, shard);
  else if (parked) await relisten(jsm, shard, shardSubjects(shard, number.epoch));
  if (shard < number.shards) say(`${stream} takes batches again`);
  return { messages: await publishedAgain(options, shard) };
}

const missing = (error: unknown): undefined => {
  if (isStreamMissing(error)) return undefined;
  throw error;
};

/** MEND-1 to MEND-3. */
async function emptied(options: MendOptions, shard: number): Promise<void> {
  const { look, number, say } = options;
  const { jsm, settings } = look;
  const stream = shardStream(shard);
  if (settings === undefined) throw new UsageError('The settings bucket is lost: first, `sluice shards rebuild`.');
  say(`${stream} takes no batches until what it holds is kept`);
  const before = await streamInfo(jsm, stream);
  // One that is sealed takes none anyway, and no change of its settings.
  if (before.config.sealed !== true) await relisten(jsm, shard, parkedSubject(shard)); // MEND-1
  await new Promise((resolve) => setTimeout(resolve, settleMs));
  const { info, state } = await stateOf(look, shard);
  const copied = await keepUnloaded(options, shard, info, state); // MEND-2
  say(`${copied.toLocaleString('en')} messages that are not loaded are in the stream ${keptStream(shard)}`);
  if (generationOf(await streamInfo(jsm, stream)) !== state.generation) {
    throw new Error(`the stream ${stream} was made again meanwhile: run this again`);
  }
  // MEND-3
  if (shard >= number.shards) {
    await jsm.streams.purge(stream); // SHARD-8
    return;
  }
  await jsm.streams.delete(stream);
  await madeAgain(options, shard);
}

/** MEND-3. Its limits are those that the copy remembers. */
async function madeAgain({ look, number }: MendOptions, shard: number): Promise<void> {
  const { jsm, settings } = look;
  if (shard >= number.shards) return;
  const { description, num_replicas: replicas } = (await streamInfo(jsm, keptStream(shard))).config;
  const maxBytes = Number(description?.slice(limitWord.length)) || -1;
  await ensureStream(jsm, shard, number.epoch, { shards: number.shards, maxBytes, replicas });
  await settings?.put(acceptKey(shard), generationOf(await streamInfo(jsm, shardStream(shard))));
}

/** MEND-2. @returns how many messages KEPT_<shard> holds */
async function keepUnloaded(options: MendOptions, shard: number, info: StreamInfo, state: ShardState): Promise<number> {
  const { nc, look, ledger, progress, logger } = options;
  const { jsm } = look;
  const stream = shardStream(shard);
  const { generation } = state;
  const kept = keptStream(shard);
  await keepIn(jsm, shard, info);
  const from = Math.max(info.state.first_seq, (await lastKept(jsm, kept, generation)) + 1);
  const js = jetstream(nc);
  const group = (await ledger.groups()).find((of) => of.shard === shard && of.generation === generation);
  const blocks = group === undefined ? undefined : ledger.blocks(group);
  let block = (await blocks?.next())?.value ?? undefined;
  if (info.state.messages > 0) {
    await scanLog({
      ...{ nc, jsm, stream, generation, logger },
      from,
      to: info.state.last_seq,
      async onMessage({ sequence, timeMs, data }) {
        progress(`${stream}: message ${sequence} of ${info.state.last_seq}`);
        while (block !== undefined && block.hi < sequence) block = (await blocks?.next())?.value ?? undefined;
        // Blocks of an older version do not say when: their messages are copied, and left out as duplicates.
        if (block !== undefined && sequence >= block.lo && block.hiAtMs > 0 && !isAnother(timeMs, block)) return;
        const head = headers();
        head.set(sequenceHeader, String(sequence));
        head.set(generationHeader, generation);
        await js.publish(keptSubject(shard, tenantOf(data)), data.slice(), { headers: head });
      },
    });
  }
  return (await streamInfo(jsm, kept)).state.messages;
}

async function keepIn(jsm: JetStreamManager, shard: number, { config }: StreamInfo): Promise<void> {
  const name = keptStream(shard);
  if ((await streamInfo(jsm, name).catch(missing)) !== undefined) return;
  await jsm.streams.add({
    name,
    subjects: [keptSubject(shard, '>')],
    storage: 'file',
    retention: 'limits',
    discard: 'new',
    // JetStream sets a limit aside, which might not fit: the copy has none, and remembers its stream's.
    description: `${limitWord}${config.max_bytes}`,
    num_replicas: config.num_replicas,
    allow_direct: true,
  });
}

/** The last sequence that an interrupted mend has copied. */
async function lastKept(jsm: JetStreamManager, kept: string, generation: string): Promise<number> {
  const { messages, last_seq: seq } = (await streamInfo(jsm, kept)).state;
  if (messages === 0) return 0;
  const last = await jsm.streams.getMessage(kept, { seq });
  return last?.header.get(generationHeader) === generation ? Number(last.header.get(sequenceHeader)) : 0;
}

/** Of the first batch; `_` for bytes that name none. */
function tenantOf(data: Uint8Array): string {
  let tenant = '';
  eachFrame(data, (frame) => {
    if (tenant === '') tenant = tenantIn(data, frame);
  });
  return tenantIdPattern.test(tenant) ? tenant : '_';
}

/** MEND-4. @returns how many */
async function publishedAgain(options: MendOptions, shard: number): Promise<number> {
  const { nc, look, number, logger, progress } = options;
  const { jsm } = look;
  const kept = keptStream(shard);
  const info = await streamInfo(jsm, kept).catch(missing);
  if (info === undefined) return 0;
  const { messages, first_seq: from, last_seq: to } = info.state;
  const js = jetstream(nc);
  const target = shard < number.shards ? shard : shard % number.shards;
  const sending = new Set<Promise<unknown>>();
  let failure: unknown;
  if (messages > 0) {
    await scanLog({
      ...{ nc, jsm, stream: kept, generation: generationOf(info), from, to, logger },
      async onMessage({ sequence, data }) {
        progress(`publishing message ${sequence} of ${to} again`);
        const copy = data.slice();
        const tenant = tenantOf(copy);
        if (eachFrame(copy, () => undefined)) markRetried(copy);
        const sent: Promise<void> = js
          .publish(batchSubject(target, tenant, number.epoch), copy, { timeout: ackMs })
          .then(
            () => void sending.delete(sent),
            (error: unknown) => {
              failure ??= error;
              sending.delete(sent);
            },
          );
        sending.add(sent);
        if (sending.size >= publishesAtOnce) await Promise.race(sending);
        if (failure !== undefined) throw failure;
      },
    });
  }
  await Promise.all(sending);
  if (failure !== undefined) throw failure;
  await jsm.streams.delete(kept);
  return messages;
}
