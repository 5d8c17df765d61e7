/** The round of a shard: every few seconds it looks at the stream, measures how far behind the shard is, and trims (LOAD-8). */
import type { StreamInfo } from '@nats-io/jetstream';
import { failpoint } from '../../lib/failpoint.js';
import { generationOf } from '../../lib/log-streams.js';
import { streamInfo } from '../../lib/stream-info.js';
import type { Gatherer } from './gatherer.js';
import type { Committed, Position } from './position.js';
import type { ShardContext } from './shard-options.js';
import type { Wait } from './standstill.js';
import type { TrimLedger } from './trim.js';

export interface ShardRound {
  /** Why the shard stands still, as of the last {@link look}; undefined while it moves. */
  readonly wait: Wait | undefined;
  /** Whether the shard moves; raises the alarm when it does not. */
  look(): void;
  /** Resolves when no round runs any more. */
  end(): Promise<void>;
}

/** Begins the rounds, each `roundMs` after the one before. */
export function startRounds(
  context: ShardContext,
  position: Position,
  gatherer: Pick<Gatherer, 'inFlight'>,
  ledger: TrimLedger,
): ShardRound {
  const { jsm, shard, stream, ask, life, still, metrics, logger, roundMs = 2_000 } = context;
  /** Messages that were not loaded at the last round. */
  let depth = 0;
  let wait: Wait | undefined;

  function measure({ state }: StreamInfo, committed: Committed | undefined): void {
    const loaded = committed === undefined ? undefined : Math.max(committed.deferred, state.first_seq - 1);
    depth = loaded === undefined ? state.messages : Math.max(0, state.last_seq - loaded);
    const oldest = gatherer.inFlight?.firstTimeMs ?? context.reader.peek()?.timeMs;
    const since =
      depth === 0 ? undefined : (oldest ?? Date.parse(committed?.hi === 0 ? state.first_ts : state.last_ts));
    metrics.measured(shard, { depth, lagMs: since === undefined ? 0 : Math.max(0, Date.now() - since) });
  }

  async function round(): Promise<void> {
    const { committed } = position;
    const info = await ask(() => streamInfo(jsm, stream));
    measure(info, committed);
    const { state, config } = info;
    // Only the stream that ClickHouse was asked about, and only with its end in place. After a break it may have lost its end and
    // given what is loaded as a sequence to other messages, so the next recovery comes first.
    if (committed === undefined || position.inDoubt) return;
    if (generationOf(info) !== committed.generation || state.last_seq < committed.hi) return;
    const point = ledger.point({
      nowMs: Date.now(),
      streamBytes: state.bytes,
      maxBytes: config.max_bytes,
      replayMs: context.replayMs,
    });
    if (point === undefined || point > committed.hi) return;
    if (point >= state.first_seq) {
      failpoint('loader.before-purge');
      await jsm.streams.purge(stream, { seq: point + 1 });
      failpoint('loader.after-purge');
      metrics.trimmed(shard);
    }
    ledger.trimmed(point);
  }

  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();
  const schedule = (): void => {
    timer = setTimeout(() => {
      running = round()
        .catch((error: unknown) => logger.debug({ error: String(error) }, 'cannot look at the stream'))
        .finally(() => {
          if (!life.stopping) schedule();
        });
    }, roundMs);
  };
  schedule();

  return {
    get wait() {
      return wait;
    },
    look() {
      const before = wait;
      wait = still.look(depth > 0 || gatherer.inFlight !== undefined);
      metrics.standing(shard, wait !== undefined);
      if (wait !== undefined && wait.reason !== before?.reason) {
        logger.error({ ...wait, messages: depth }, `shard ${shard} stands still: ${wait.reason}`);
      } else if (wait === undefined && before !== undefined) logger.info('the shard moves again');
    },
    end() {
      clearTimeout(timer);
      return running;
    },
  };
}
