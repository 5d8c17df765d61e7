/**
 * Changing the number of shards. A batch's shard is computed from the number, so a retry may land on another shard than its
 * first send. That is harmless only when the first send is in ClickHouse by then (LOAD-5 looks there, over all shards). So no
 * batch may be in the log, or on its way into it, when the number changes:
 *
 *   SHARD-1  The setting `shards` (lib/shard-setting.ts) alone has the number, and changes by compare-and-set alone. A command that
 *       changes it writes that into it, and again every {@link beatMs}; another process may take over an abandoned change.
 *   SHARD-2  While a command changes it, gateways take no batches. This is only for speed: clients hear it at once and retry.
 *   SHARD-3  What makes it safe: no stream listens to the subjects of its epoch. A late batch of a frozen or cut-off gateway finds no
 *       stream and is not stored, and its client hears that.
 *   SHARD-4  Then every stream is loaded to its end; the command checks the ends again afterwards.
 *   SHARD-5  Every change begins a new epoch, one that was given up too. Streams listen to subjects of the new epoch from then on,
 *      so what was computed from the old number finds no stream forever.
 *   SHARD-6  Before the streams are opened, all live workers have taken up the new number, and have restarted their loaders. So these
 *       know what was lately sent again on other shards (LOAD-5, DEDUP-2).
 *   SHARD-7  Until the streams are opened, the old number can be taken up again; afterwards only the new one.
 *      No process takes up a number that was edited by hand, or lost (lib/shard-number.ts); shards-rebuild.ts mends it.
 *   SHARD-8  A stream that is not used any more is emptied and kept: its name stays taken, so that no gateway makes it with an old subject.
 *      It is made again when the number grows again, and is accepted before that: its old generation was loaded to its end.
 */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type { JetStreamManager } from '@nats-io/jetstream';
import { type KV, Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/nats-core';
import { UsageError } from '../../lib/errors.js';
import { isJetStreamError, isStreamMissing } from '../../lib/jetstream-errors.js';
import { generationOf, pinned, streamConfig } from '../../lib/log-streams.js';
import { shardsEntry, trustedSetting } from '../../lib/shard-number.js';
import {
  formatShardSetting,
  maxShards,
  parseShardSetting,
  type ShardSetting,
  shardsKey,
} from '../../lib/shard-setting.js';
import { streamInfo } from '../../lib/stream-info.js';
import {
  committedSubjects,
  parkedSubject,
  settingsBucket,
  shardStream,
  shardSubjects,
  workersBucket,
} from '../../lib/subjects.js';
import type { BlockStore } from '../loader/block-store.js';
import { acceptKey } from '../loader/shard.js';
import { type ShardLook, shardStatus } from './shard-states.js';

export interface ChangeOptions {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly store: Pick<BlockStore, 'lastBlock'>;
  /** How long the drain may take, ms. Past it, the old number is taken up again. */
  readonly timeoutMs: number;
  /** A mark that did not change for so long is abandoned, ms. @default 8000 */
  readonly abandonedMs?: number;
  /** Ends it as the time does. */
  readonly signal: AbortSignal;
  /** A line for people, at each step. */
  readonly say: (text: string) => void;
  /** How far a step is, often. */
  readonly progress: (text: string) => void;
}

const beatMs = 2_000;
/** A mark that did not change for so long is abandoned. */
const abandonedMs = 8_000;
/** Gateways look at the setting every second. */
const courtesyMs = 1_500;
const roundMs = 200;
/** How long workers may take to take up the new number. */
const followMs = 60_000;
/** The bucket of workers lives in memory: after a restart of the log it is empty until they have spoken again. */
const silenceMs = 5_000;
const reopenMs = 60_000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The setting, held by this process (SHARD-1). */
interface HeldSetting {
  readonly setting: ShardSetting;
  write(next: Omit<ShardSetting, 'changing'>, to: number | undefined): Promise<void>;
  /** Throws when another command may have taken it over: it was not renewed for too long. */
  check(): void;
  /** Somebody else has. */
  readonly lost: boolean;
  release(): void;
}

async function hold(kv: KV, from: ShardSetting, revision: number, first: ShardSetting): Promise<HeldSetting> {
  const by = `${hostname()}:${process.pid}:${randomBytes(3).toString('hex')}`;
  let setting = from;
  let at = revision;
  let beat = 0;
  let renewedAt = performance.now();
  let lost = false;
  let queue: Promise<void> = Promise.resolve();

  /** A write whose answer was lost has happened or has not: then the revision is another one than this process knows. */
  async function update(text: string): Promise<number> {
    try {
      return await kv.update(shardsKey, text, at);
    } catch (error) {
      if (!isJetStreamError(error, 'wrongLastSequence')) throw error;
      const entry = await kv.get(shardsKey);
      if (entry?.string() === text) return entry.revision;
      if (entry !== null && parseShardSetting(entry.string()).changing?.by === by) {
        return await kv.update(shardsKey, text, entry.revision);
      }
      lost = true;
      throw error;
    }
  }
  const put = (next: () => ShardSetting): Promise<void> => {
    const done = queue.then(async () => {
      if (lost) throw new Error(takenOver);
      const value = next();
      const since = performance.now();
      try {
        at = await update(formatShardSetting(value));
      } catch (error) {
        throw lost ? new Error(takenOver) : error;
      }
      renewedAt = since;
      setting = value;
    });
    queue = done.catch(() => undefined);
    return done;
  };
  const marked = (next: Omit<ShardSetting, 'changing'>, to: number): ShardSetting => ({
    shards: next.shards,
    epoch: next.epoch,
    changing: { to, by, beat: ++beat },
  });
  await put(() => marked(first, first.changing?.to ?? first.shards));
  const timer = setInterval(() => {
    void put(() => marked(setting, setting.changing?.to ?? setting.shards)).catch(() => undefined);
  }, beatMs);
  return {
    get setting() {
      return setting;
    },
    get lost() {
      return lost;
    },
    async write(next, to) {
      if (to === undefined) clearInterval(timer);
      await put(() => (to === undefined ? { shards: next.shards, epoch: next.epoch } : marked(next, to)));
    },
    check() {
      if (lost) throw new Error(takenOver);
      if (performance.now() - renewedAt > abandonedMs / 2) throw new Error('the log has not answered for a while');
    },
    release: () => clearInterval(timer),
  };
}

const takenOver = 'another command has taken this change over: look with `sluice shards`';

/** The setting, once no command works on it; a change that was abandoned is ended first (SHARD-1, SHARD-7). */
export async function settledShards(
  options: ChangeOptions,
): Promise<{ kv: KV; setting: ShardSetting; revision: number }> {
  const kv = await new Kvm(options.nc).open(settingsBucket);
  const read = async (): Promise<{ setting: ShardSetting; revision: number }> => {
    const entry = await shardsEntry(kv);
    const setting = await trustedSetting(options.jsm, entry?.string());
    if (setting === undefined || entry === undefined) {
      throw new UsageError('No gateway has ever started here: there are no shards yet.');
    }
    return { setting, revision: entry.revision };
  };
  const found = await read();
  if (found.setting.changing === undefined) return { kv, ...found };
  options.say(
    `a change to ${found.setting.changing.to} shards was begun by ${found.setting.changing.by}; is it still at it?`,
  );
  for (let waited = 0; waited < (options.abandonedMs ?? abandonedMs); waited += roundMs) {
    await pause(roundMs);
    if ((await read()).revision === found.revision) continue;
    throw new UsageError(`${found.setting.changing.by} is changing the number of shards now: wait until it is done.`);
  }
  options.say('it is not; ending what it began');
  const { shards, epoch } = found.setting;
  const opening = found.setting.changing.to === shards;
  const held = await hold(kv, found.setting, found.revision, {
    shards,
    epoch: opening ? epoch : epoch + 1,
    changing: { to: shards, by: '', beat: 0 },
  });
  try {
    if (opening) await followed(options.nc, held.setting.epoch, held.check); // SHARD-6
    await open(options, held);
  } finally {
    held.release();
  }
  return { kv, ...(await read()) };
}

/**
 * Changes the number, or leaves everything as it was.
 * @throws UsageError when it cannot be begun
 * @throws Error when it was given up; batches are taken again by then, or the error says what to do
 */
export async function changeShards(options: ChangeOptions, to: number): Promise<ShardSetting> {
  const { nc, jsm, signal, say } = options;
  if (!Number.isInteger(to) || to < 1 || to > maxShards) {
    throw new UsageError(`The number of shards is from 1 to ${maxShards}.`);
  }
  const { kv, setting: before, revision } = await settledShards(options);
  const from = before.shards;
  if (from === to) return before;
  await mayBegin({ ...options, settings: kv }, before);
  const until = performance.now() + options.timeoutMs;
  const held = await hold(kv, before, revision, { ...before, changing: { to, by: '', beat: 0 } });
  const goingOn = (): void => {
    held.check();
    if (signal.aborted) throw new Error('interrupted');
    if (performance.now() > until) throw new Error(`not done within ${Math.round(options.timeoutMs / 1000)} s`);
  };
  try {
    say(`changing from ${from} to ${to} shards: gateways take no batches until it is done`);
    await pause(courtesyMs); // SHARD-2
    goingOn();
    for (let shard = from; shard < to; shard++) await makeParked(jsm, kv, shard);
    for (let shard = 0; shard < from; shard++) {
      goingOn();
      await relisten(jsm, shard, parkedSubject(shard)); // SHARD-3
    }
    await drained(options, from, goingOn);
    // SHARD-5, SHARD-7
    const epoch = before.epoch + 1;
    await held.write({ shards: to, epoch }, to);
    say('the log is loaded to its end; the workers take up the new number');
    await followed(nc, epoch, goingOn);
    goingOn();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    try {
      say(`${why}: going back to ${from} shards`);
      await reopen(options, held, { shards: from, epoch: before.epoch + 2 });
    } catch (second) {
      throw new Error(`${why}; and going back failed (${String(second)}): run \`sluice shards\` to mend it`);
    } finally {
      held.release();
    }
    throw new Error(`The number of shards stays ${from}: ${why}.`);
  }
  try {
    await open(options, held);
  } catch (error) {
    throw new Error(`the streams could not all be opened (${String(error)}): run \`sluice shards\` to finish it`);
  } finally {
    held.release();
  }
  for (let shard = to; shard < from; shard++) {
    // SHARD-8. Everything in it is loaded.
    await jsm.streams.purge(shardStream(shard)).catch((error: unknown) => {
      say(`${shardStream(shard)} is not used any more, and could not be emptied: ${String(error)}`);
    });
  }
  return held.setting;
}

/** SHARD-7: the old number again, as patiently as it takes to reach a log that restarts. */
async function reopen(options: ChangeOptions, held: HeldSetting, old: Omit<ShardSetting, 'changing'>): Promise<void> {
  const until = performance.now() + reopenMs;
  for (;;) {
    try {
      await held.write(old, old.shards);
      await open(options, held);
      return;
    } catch (error) {
      if (held.lost || performance.now() > until) throw error;
      await pause(1_000);
    }
  }
}

/** No worker would load what is to be drained, or not all of it: better not to begin. */
async function mayBegin(look: ShardLook & { readonly nc: NatsConnection }, setting: ShardSetting): Promise<void> {
  if ((await workersEpochs(look.nc)).size === 0) {
    throw new UsageError('No worker runs, so what is in the log would not be loaded. Start one first.');
  }
  for (let shard = 0; shard < setting.shards; shard++) {
    const { stopped } = await shardStatus(look, shard, setting);
    if (stopped !== undefined) throw new UsageError(`Shard ${shard} is not loaded: ${stopped}. Mend that first.`);
  }
}

/** From now on the shard's stream listens to this subject alone. */
export async function relisten(jsm: JetStreamManager, shard: number, subject: string): Promise<void> {
  const info = await streamInfo(jsm, shardStream(shard));
  await jsm.streams.update(info.config.name, { subjects: [subject], ...pinned(info) });
}

/** SHARD-8: a stream for a new shard, that no gateway can publish to yet. */
async function makeParked(jsm: JetStreamManager, settings: KV, shard: number): Promise<void> {
  const name = shardStream(shard);
  const like = (await streamInfo(jsm, shardStream(0))).config;
  try {
    const { config, state } = await streamInfo(jsm, name);
    if (state.messages > 0 || !config.subjects?.includes(parkedSubject(shard))) {
      throw new UsageError(
        `There is a stream ${name} already, and it is in use: look at what it holds, and remove it.`,
      );
    }
    await jsm.streams.delete(name);
  } catch (error) {
    if (!isStreamMissing(error)) throw error;
  }
  const made = await jsm.streams.add(
    streamConfig(shard, parkedSubject(shard), { maxBytes: like.max_bytes, replicas: like.num_replicas }),
  );
  await settings.put(acceptKey(shard), generationOf(made));
}

/** A shard's position in its stream. */
interface Committed {
  readonly generation: string;
  readonly sequence: number;
}

/**
 * What workers say they have, by shard: messages that hold nothing but copies are in no block yet (LOAD-5), and count all the same.
 */
function hearCommitted(nc: NatsConnection): { readonly hints: ReadonlyMap<number, Committed>; end(): void } {
  const hints = new Map<number, Committed>();
  const subscription = nc.subscribe(committedSubjects, {
    callback(error, message) {
      if (error !== null) return;
      const { generation, sequence } = message.json<Committed>();
      hints.set(Number(message.subject.slice(message.subject.lastIndexOf('.') + 1)), { generation, sequence });
    },
  });
  return { hints, end: () => subscription.unsubscribe() };
}

/** The end of a shard's stream, and how many messages before it are not loaded. @throws Error the stream lost its end (LOAD-8) */
async function leftIn(
  { jsm, store }: ChangeOptions,
  shard: number,
  hint: Committed | undefined,
): Promise<{ readonly end: number; readonly left: number }> {
  const info = await streamInfo(jsm, shardStream(shard));
  const { first_seq: first, last_seq: end, messages } = info.state;
  if (messages === 0) return { end, left: 0 };
  const generation = generationOf(info);
  let loaded = hint?.generation === generation ? hint.sequence : 0;
  if (loaded < end) loaded = Math.max(loaded, (await store.lastBlock(shard, generation, undefined)).hi);
  // LOAD-8. It may have taken messages since: they would pass for loaded. (What came after the first look is no trouble.)
  if (loaded > end && (await streamInfo(jsm, shardStream(shard))).state.last_seq < loaded) {
    throw new Error(`the stream of shard ${shard} lost its end: \`sluice shards\` shows it`);
  }
  return { end, left: Math.max(0, end - Math.max(loaded, first - 1)) };
}

/** SHARD-4: until everything in the streams is in ClickHouse. */
async function drained(options: ChangeOptions, shards: number, goingOn: () => void): Promise<void> {
  const committed = hearCommitted(options.nc);
  try {
    /** Ends as they were when all was loaded; they must be so twice, as a message may be on its way through the server. */
    let seen = '';
    for (;;) {
      goingOn();
      let left = 0;
      const ends: number[] = [];
      for (let shard = 0; shard < shards; shard++) {
        const stream = await leftIn(options, shard, committed.hints.get(shard));
        ends.push(stream.end);
        left += stream.left;
      }
      options.progress(`waiting until the log is loaded: ${left.toLocaleString('en')} messages to go`);
      const now = ends.join();
      if (left === 0 && seen === now) return;
      seen = left === 0 ? now : '';
      await pause(left === 0 ? 1_000 : roundMs);
    }
  } finally {
    committed.end();
  }
}

/** Live workers, with the epoch that each has taken up. */
async function workersEpochs(nc: NatsConnection): Promise<Map<string, number>> {
  const epochs = new Map<string, number>();
  try {
    const bucket = await new Kvm(nc).open(workersBucket);
    for await (const worker of await bucket.keys()) {
      const entry = await bucket.get(worker);
      if (entry?.operation === 'PUT') epochs.set(worker, Number(entry.string() || 1));
    }
  } catch (error) {
    if (!isStreamMissing(error)) throw error;
  }
  return epochs;
}

/** SHARD-6. A worker that is gone is forgotten by the bucket after three seconds; one that starts later reads the setting first. */
async function followed(nc: NatsConnection, epoch: number, goingOn: () => void): Promise<void> {
  const until = performance.now() + followMs;
  let heardAt = performance.now();
  for (;;) {
    goingOn();
    const epochs = [...(await workersEpochs(nc))];
    const now = performance.now();
    if (epochs.length > 0) heardAt = now;
    if (epochs.length > 0 ? epochs.every(([, of]) => of === epoch) : now - heardAt > silenceMs) return;
    if (now > until) {
      const behind = epochs.filter(([, of]) => of !== epoch).map(([worker]) => worker);
      throw new Error(`these workers do not take up the new number: ${behind.join(', ')}`);
    }
    await pause(roundMs);
  }
}

/** Lets the streams listen again, to the subjects of the setting's epoch, and unmarks it. */
async function open(options: ChangeOptions, held: HeldSetting): Promise<void> {
  const { jsm } = options;
  const { shards, epoch } = held.setting;
  for (let shard = 0; shard < shards; shard++) {
    held.check();
    await relisten(jsm, shard, shardSubjects(shard, epoch));
  }
  await held.write({ shards, epoch }, undefined);
}
