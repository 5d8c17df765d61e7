/**
 * `sluice shards [--set N]` and `sluice shards accept <shard>`: the command line of shards.ts and shard-states.ts.
 * Exit code 0: done, or all shards may be loaded. 1: not done; the number is as it was, or the error says what to do. 2: shown,
 * and a shard is stopped.
 */
import { jetstreamManager } from '@nats-io/jetstream';
import { parseArgv, resolveOptions, shardsOptions } from '../lib/config/index.js';
import { UsageError } from '../lib/errors.js';
import { createLog } from '../lib/log.js';
import { connectNats } from '../lib/nats.js';
import { eventsTable } from './connect.js';
import { endWith } from './end-command.js';
import { warehouseSink } from './loader-sink.js';
import { progressLine } from './progress-line.js';
import type { TableTarget } from './schema/index.js';
import { acceptShard, type ShardStatus, shardStatus } from './shard-states.js';
import { changeShards, settledShards } from './shards.js';
import { connectWarehouse } from './warehouse.js';

const count = (n: number): string => n.toLocaleString('en');

function textOf(shards: readonly ShardStatus[]): string[] {
  const head = ['shard', 'stream', 'made', 'messages', 'bytes', 'end', 'loaded', 'to load', ''];
  const rows = shards.map((one) => [
    String(one.shard),
    one.stream,
    one.generation,
    ...[one.messages, one.bytes, one.end, one.loaded, one.lag].map(count),
    one.stopped === undefined ? '' : 'stopped',
  ]);
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]?.length ?? 0)));
  const lines = [head, ...rows].map((row) =>
    row
      .map((cell, i) => (i < 3 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
  const stopped = shards.filter((one) => one.stopped !== undefined);
  return [...lines, ...stopped.map((one) => `shard ${one.shard} is not loaded: ${one.stopped}`)];
}

/** What is left of the words besides flags: nothing, or `accept <shard>` at the end. */
function actionOf(words: string[]): number | undefined {
  const at = words.indexOf('accept');
  if (at < 0) return undefined;
  const [, shard, ...more] = words.splice(at);
  if (shard === undefined || !/^\d{1,4}$/.test(shard) || more.length > 0) {
    throw new UsageError('Say which: sluice shards accept <shard>, as `sluice shards` shows it.');
  }
  return Number(shard);
}

async function main(): Promise<number> {
  const words = process.argv.slice(2);
  const accepted = actionOf(words);
  const config = resolveOptions(shardsOptions, parseArgv(words, shardsOptions));
  const log = createLog('shards', config.logLevel);
  const nc = await connectNats({ servers: config.natsUrl, name: 'sluice shards', log, timeoutMs: 5_000 });
  const warehouse = connectWarehouse(config, log);
  const progress = progressLine(process.stderr);
  const abort = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => abort.abort());
  const say = (text: string): void => {
    progress.end();
    process.stderr.write(`${text}\n`);
  };
  try {
    const jsm = await jetstreamManager(nc, { checkAPI: false });
    const sink = warehouseSink(
      warehouse,
      eventsTable(config.clickhouseDatabase, config.clickhouseEngine as TableTarget['engine']),
    );
    const options = {
      nc,
      jsm,
      sink,
      timeoutMs: config.drainTimeout,
      signal: abort.signal,
      say,
      progress: progress.show,
    };
    const { kv: settings } = await settledShards(options);
    const look = { jsm, sink, settings };
    if (accepted !== undefined) {
      const { generation, others } = await acceptShard(look, accepted);
      say(
        `Shard ${accepted}: the stream made at ${generation} is loaded from now on, beside what the warehouse has of ${others.join(', ')}.`,
      );
      return 0;
    }
    if (config.set > 0) {
      const { shards } = await changeShards(options, config.set);
      say(`There are ${shards} shards.`);
    }
    const { setting } = await settledShards(options);
    const shown: ShardStatus[] = [];
    for (let shard = 0; shard < setting.shards; shard++) shown.push(await shardStatus(look, shard));
    progress.end();
    const lines = config.json ? [JSON.stringify({ ...setting, states: shown })] : textOf(shown);
    process.stdout.write(`${lines.join('\n')}\n`);
    return shown.some(({ stopped }) => stopped !== undefined) ? 2 : 0;
  } finally {
    progress.end();
    await warehouse.close();
    await nc.close();
  }
}

endWith(main());
