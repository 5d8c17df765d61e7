/**
 * Gathering the next block, and the memory of the block in flight: its messages' bytes are used again only when no request can still
 * read them.
 */
import { failpoint } from '../../lib/failpoint.js';
import { StatementError } from '../clickhouse/errors.js';
import type { LogMessage } from '../reader/log-message.js';
import { type Block, type BlockLimits, type Cutter, createCutter, type FlushReason } from './block.js';
import type { Position } from './position.js';
import type { ShardContext } from './shard-options.js';

/** Whether a block is between gathering and settling; `sent` and `answered` count the requests with its bytes. */
type Flight =
  | { readonly kind: 'none' }
  | { readonly kind: 'flying'; readonly block: Block; readonly messages: LogMessage[]; sent: number; answered: number };

export interface Gatherer {
  /** As ShardIo.gather; releases the block before. */
  gather(generation: string, hi: number): Promise<Block | 'again' | undefined>;
  /** The block in flight, as it was gathered. */
  readonly inFlight: Block | undefined;
  /** Runs a request that reads the bytes of the block in flight. */
  send<T>(request: () => Promise<T>): Promise<T>;
  /** The block in flight is stored, or given up. */
  release(): void;
}

/** Nothing of the statement has left this process. */
export const wasUnsent = (error: unknown): boolean => error instanceof StatementError && error.unsent;

/** @param limits of the next block */
export function createGatherer(
  { reader, life }: Pick<ShardContext, 'reader' | 'life'>,
  position: Pick<Position, 'inDoubt'>,
  limits: () => BlockLimits,
): Gatherer {
  let flight: Flight = { kind: 'none' };

  /** A request that ended without an answer may still be writing: then its messages' bytes are not to be overwritten. */
  const release = (): void => {
    if (flight.kind === 'flying') reader.release(flight.messages, flight.answered === flight.sent);
    flight = { kind: 'none' };
  };

  /** Adds what is at hand, as far as it fits. */
  function fill(cutter: Cutter, messages: LogMessage[]): void {
    let message = reader.peek();
    while (message !== undefined && cutter.full() === undefined && cutter.add(message, Date.now())) {
      messages.push(message);
      reader.take();
      message = reader.peek();
    }
  }

  async function gather(generation: string, hi: number): Promise<Block | 'again' | undefined> {
    release();
    // Under load there is always another message: a shard that was given to another worker would be loaded by both for the whole grace.
    if (life.stopping) return undefined;
    // LOAD-8. The log may have become another one during the recovery; `seek` would forget that it is in doubt.
    if (position.inDoubt) return 'again';
    reader.seek(generation, hi);
    const cutter = createCutter(limits());
    const messages: LogMessage[] = [];
    const cut = (reason: FlushReason): Block => {
      failpoint('loader.after-gather');
      const block = cutter.cut(reason);
      flight = { kind: 'flying', block, messages, sent: 0, answered: 0 };
      return block;
    };
    while (!reader.lost) {
      fill(cutter, messages);
      const full = cutter.full();
      if (full !== undefined) return cut(full);
      if (life.stopping) return cutter.size > 0 ? cut('drain') : undefined;
      const left = cutter.dueMs - Date.now();
      if (left <= 0) return cut('delay');
      await reader.wait(left);
    }
    reader.release(messages, true);
    return 'again';
  }

  return {
    gather,
    get inFlight() {
      return flight.kind === 'flying' ? flight.block : undefined;
    },
    async send(request) {
      const of = flight;
      if (of.kind === 'none') return request();
      of.sent++;
      try {
        const answer = await request();
        of.answered++;
        return answer;
      } catch (error) {
        if (wasUnsent(error)) of.sent--;
        throw error;
      }
    },
    release,
  };
}
