/**
 * `sluice shards [--set N]`, `sluice shards accept <shard>`, `mend <shard>` and `rebuild`: the command line of shards.ts,
 * shard-states.ts, shard-mend.ts and shards-rebuild.ts.
 * Exit code 0: done, or all shards are loaded. 1: not done; the number is as it was, or the error says what to do. 2: shown,
 * and an operator must act: a shard is stopped, makes no progress or takes no batches, or the number was edited or lost.
 */
import { jetstreamManager } from '@nats-io/jetstream';
import { parseArgv, resolveOptions, shardsOptions } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { createLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { natsAt } from '../../lib/nats-login.js';
import { createProgressLine } from '../../lib/progress-line.js';
import { shardStreams } from '../../lib/shard-number.js';
import type { ShardSetting } from '../../lib/shard-setting.js';
import { tableLines } from '../../lib/table.js';
import { print } from '../../lib/terminal.js';
import { createClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import type { TableTarget } from '../clickhouse/schema/index.js';
import { createClickHouseBlockStore } from '../loader/block-store.js';
import { askShardWaits, waitOf } from '../loader/shard-waits.js';
import { endWith } from './end-command.js';
import { createLedgerStore } from './ledger-store.js';
import { mendShard } from './shard-mend.js';
import { acceptShard, bucketIfThere, keptText, type ShardStatus, shardsToLookAt, shownStatus } from './shard-states.js';
import { type ChangeOptions, changeShards, settledShards } from './shards.js';
import { rebuildShards } from './shards-rebuild.js';

const count = (n: number): string => n.toLocaleString('en');

/** A shard, and why it waits; undefined when it moves. */
type Shown = ShardStatus & { readonly waits: string | undefined };

function textOf(shards: readonly Shown[]): string[] {
  const head = ['shard', 'stream', 'made', 'messages', 'bytes', 'end', 'loaded', 'to load', ''];
  const rows = shards.map((one) => [
    String(one.shard),
    one.stream,
    one.generation,
    ...[one.messages, one.bytes, one.end].map(count),
    ...[one.loaded, one.lag].map((n) => (one.unknown === undefined ? count(n) : '?')),
    one.stopped !== undefined
      ? 'stopped'
      : one.closed !== undefined
        ? 'closed'
        : one.waits !== undefined
          ? 'waits'
          : one.unknown !== undefined
            ? 'unknown'
            : '',
  ]);
  return [...tableLines([head, ...rows], 3), ...shards.flatMap(troubleOf)];
}

const troubleOf = ({ shard, stopped, closed, waits, unknown }: Shown): string[] => [
  ...(unknown === undefined ? [] : [`shard ${shard}: ClickHouse does not say what of it is loaded: ${unknown}`]),
  ...(stopped === undefined ? [] : [`shard ${shard} is not loaded: ${stopped}`]),
  ...(closed === undefined ? [] : [`shard ${shard} takes no batches: ${closed}`]),
  // A shard that is stopped waits for the same reason.
  ...(waits === undefined || stopped !== undefined ? [] : [`shard ${shard} waits: ${waits}`]),
];

type Action = { readonly kind: 'show' | 'rebuild' } | { readonly kind: 'accept' | 'mend'; readonly shard: number };

/** What is asked for by the words besides flags, which come last. */
function actionOf(words: string[]): Action {
  const at = words.findIndex((word) => word === 'accept' || word === 'mend' || word === 'rebuild');
  if (at < 0) return { kind: 'show' };
  const [kind, shard, ...more] = words.splice(at);
  if (kind === 'rebuild') {
    if (shard !== undefined) throw new UsageError('`sluice shards rebuild` takes no arguments; flags come before it.');
    return { kind };
  }
  if (shard === undefined || !/^\d{1,4}$/.test(shard) || more.length > 0) {
    throw new UsageError(`Say which: sluice shards ${kind} <shard>, as \`sluice shards\` shows it.`);
  }
  return { kind: kind === 'accept' ? 'accept' : 'mend', shard: Number(shard) };
}

/** The number, or why it is not to be trusted. */
async function numberOf(options: ChangeOptions): Promise<{ setting?: ShardSetting; problem?: string }> {
  try {
    return { setting: (await settledShards(options)).setting };
  } catch (error) {
    // Without a stream there is nothing to show.
    if (!(error instanceof UsageError) || (await shardStreams(options.jsm)).length === 0) throw error;
    return { problem: error.message };
  }
}

async function main(): Promise<number> {
  const words = process.argv.slice(2);
  const action = actionOf(words);
  const config = resolveOptions(shardsOptions, parseArgv(words, shardsOptions));
  const logger = createLogger('shards', config.logLevel);
  const nc = await connectNats({ ...natsAt(config), name: 'sluice shards', logger, timeoutMs: 5_000 });
  const clickhouse = createClickHouse(config, logger);
  const progress = createProgressLine(process.stderr);
  const abort = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => abort.abort());
  const say = (text: string): void => {
    progress.clear();
    process.stderr.write(`${text}\n`);
  };
  try {
    const jsm = await jetstreamManager(nc, { checkAPI: false });
    const target = eventsTable(config.clickhouseDatabase, config.clickhouseEngine as TableTarget['engine']);
    const store = createClickHouseBlockStore(clickhouse, target);
    const options = {
      nc,
      jsm,
      store,
      timeoutMs: config.drainTimeout,
      signal: abort.signal,
      say,
      progress: progress.show,
    };
    if (action.kind === 'rebuild') {
      const { setting, written, opened } = await rebuildShards({ nc, jsm, wanted: config.set, logger });
      say(
        written
          ? `There are ${setting.shards} shards: written again from the streams.`
          : `The number of shards is right: ${setting.shards}.`,
      );
      for (const stream of opened) say(`${stream} takes batches again.`);
    }
    const settings = await bucketIfThere(nc);
    const look = { jsm, store, settings };
    if (action.kind === 'accept') {
      const { generation, others } = await acceptShard(look, action.shard);
      say(
        `Shard ${action.shard}: the stream made at ${generation} is loaded from now on, beside what ClickHouse has of ${others.join(', ')}.`,
      );
      return 0;
    }
    if (action.kind === 'mend') {
      const { setting: number } = await settledShards(options);
      const ledger = createLedgerStore(clickhouse, target);
      const { messages } = await mendShard(
        { nc, look, ledger, number, say, progress: progress.show, logger },
        action.shard,
      );
      say(
        `Shard ${action.shard}: ${count(messages)} messages were published again; what is stored already is left out.`,
      );
      return 0;
    }
    if (action.kind === 'show' && config.set > 0) {
      const { shards } = await changeShards(options, config.set);
      say(`There are ${shards} shards.`);
    }
    const { setting, problem } = await numberOf(options);
    const workers = await askShardWaits(nc);
    const shown: Shown[] = [];
    let limitMs: number | undefined;
    for (const shard of await shardsToLookAt(jsm, setting?.shards)) {
      const status = await shownStatus(look, shard, setting, limitMs);
      // ClickHouse that is away is waited for once, and not for each shard.
      if (status.unknown !== undefined) limitMs = 500;
      shown.push({ ...status, waits: waitOf(status, workers) });
    }
    const kept = await keptText(jsm);
    progress.clear();
    const lines = config.json
      ? [JSON.stringify({ ...setting, problem, kept, states: shown })]
      : [...textOf(shown), ...kept, ...(problem === undefined ? [] : [problem])];
    print(`${lines.join('\n')}\n`);
    const trouble = shown.some((one) => troubleOf(one).length > 0);
    return trouble || kept.length > 0 || problem !== undefined ? 2 : 0;
  } finally {
    progress.clear();
    await clickhouse.close();
    await nc.close();
  }
}

endWith(main());
