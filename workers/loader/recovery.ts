/** Recovery (LOAD-3, LOAD-5, LOAD-8): where a shard stands, read from the log and ClickHouse. */
import { failpoint } from '../../lib/failpoint.js';
import { generationOf } from '../../lib/log-streams.js';
import { streamInfo } from '../../lib/stream-info.js';
import { utcDay } from '../../lib/timestamp.js';
import { dayMs, hourMs, MiB } from '../../lib/units.js';
import { isReplaced } from '../reader/end.js';
import { type Deduplicator, suspectMs } from './dedup.js';
import type { ShardState } from './loader.js';
import type { Position } from './position.js';
import type { ShardContext } from './shard-options.js';

/** Share of a stream's limit that deferred messages may take (LOAD-5): they cannot be trimmed. */
const deferShare = 1 / 8;
const maxDeferredBytes = 64 * MiB;
/** Retried batches that are read from ClickHouse after a recovery. */
const maxRetried = 50_000;
/** How far a gateway's clock, by which they are found, may be behind the log's; and what a gateway may hold a batch for. */
const clockMarginMs = hourMs;

/** Rejects when the log or ClickHouse cannot be reached, or the stream is replaced meanwhile. */
export async function recoverShard(
  context: ShardContext,
  dedup: Deduplicator,
  position: Position,
): Promise<ShardState> {
  const { jsm, shard, stream, store, ask, reader } = context;
  const { breaks } = reader;
  let info = await ask(() => streamInfo(jsm, stream));
  const generation = generationOf(info);
  // Blocks that matter begin at the stream's first message or, for the last one that was loaded, just before it:
  // one day of margin covers that and clocks that differ among the log's servers.
  const firstMs = Date.parse(info.state.first_ts);
  const fromDay = info.state.messages > 0 && firstMs > dayMs ? utcDay(firstMs - dayMs) : undefined;
  const last = await store.lastBlock(shard, generation, fromDay);
  // Another worker may have loaded what came since: only a look after ClickHouse's answer shows that a stream went backwards.
  if (last.hi > info.state.last_seq) {
    info = await ask(() => streamInfo(jsm, stream));
    if (generationOf(info) !== generation) throw new Error('the stream was made again during the recovery');
  }
  // LOAD-5, DEDUP-2. The next message is not older than the stream's first one.
  const nextMs = info.state.messages > 0 ? firstMs : Date.now();
  const retried = await store.retriedSince(nextMs - suspectMs - clockMarginMs, maxRetried + 1);
  dedup.begin(retried.slice(0, maxRetried), retried.length <= maxRetried);
  const found = info;
  const replaced = await ask(() => isReplaced(jsm, found, last));
  const { max_bytes: maxBytes } = info.config;
  failpoint('loader.after-recover');
  const accepted = last.others.length > 0 && (await context.accepted(shard, generation));
  position.recovered(breaks);
  return {
    generation,
    firstSequence: info.state.first_seq,
    lastSequence: info.state.last_seq,
    ...last,
    replaced,
    accepted,
    deferBytes: Math.min(maxDeferredBytes, maxBytes > 0 ? maxBytes * deferShare : maxDeferredBytes),
  };
}
