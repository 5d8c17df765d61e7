/**
 * LOAD-5: decides which copies of retried batches must not be stored. Pure, except for the look-ups, which are injected.
 *
 * A client numbers the sends of a batch, and a gateway that publishes a batch twice marks the second copy. So an identity (tenant,
 * batch_id) is in the log with attempt 1 at most once, and every other copy is marked as a copy. The worker looks up suspects only, so
 * the cost grows with retries and not with traffic:
 *
 *   DEDUP-1  A copy of another attempt than 1 makes its identity a suspect. 0 means "unknown", and counts as a retry.
 *   DEDUP-2  The first copy may come late, from a gateway that held it: so an identity stays a suspect for an hour of the log's time
 *      after a retry of it was seen. A gateway never publishes what it has held for more than ten minutes. After a recovery
 *      the set is read from ClickHouse, whichever worker wrote it.
 *   DEDUP-3  All copies of a suspect in the block count, in the order of the log, on top of what ClickHouse has in any shard.
 *   DEDUP-4  A copy is a duplicate when its fingerprint (fingerprint.ts) is that of what is there: as many events, with the same ids.
 *      Otherwise event_ids decide: stored events are left out, and all others are stored. So a client that reuses a batch id for other
 *      events loses none of them. A copy of which a gateway of another contract had refused a part is completed. A batch may name an
 *      event twice: of each id only as many are left out as are there.
 *   DEDUP-5  The set is bounded. When an entry is dropped for that, every batch is a suspect until its hour is over: slower, never
 *       wrong.
 *   DEDUP-6  Event ids are compared in groups of some 20,000. What moves for it is bounded by the copies: it does not grow with what
 *      is stored under a batch id (stored-events.ts).
 *
 * remembered-retries.ts is the set of DEDUP-2, suspects.ts finds the copies of suspects in a block, copy-verdicts.ts judges them, and
 * leave-out.ts makes the block without the duplicates.
 */

import { hourMs } from '../../lib/units.js';
import type { Block } from './block.js';
import { judgeCopies, type StoredCopies } from './copy-verdicts.js';
import { keyOf } from './frames.js';
import { leaveOut } from './leave-out.js';
import { createRememberedRetries } from './remembered-retries.js';
import type { Identity } from './stored-events.js';
import { inEither, retriesIn, suspectsIn } from './suspects.js';

/** How long the identity of a retry stays a suspect, in ms of the log's time. */
export const suspectMs = hourMs;
/** Identities that are remembered: about 150 bytes each. */
const maxRemembered = 50_000;

export interface Deduplicator {
  /**
   * DEDUP-2, after a recovery: begins again with what ClickHouse has.
   * @param batches retried batches that were stored within {@link suspectMs} before the next message
   * @param complete there are no others
   */
  begin(batches: readonly Identity[], complete: boolean): void;
  /** The block without the copies that are stored. The same object when there is none. */
  plan(block: Block): Promise<Block>;
  /** Identities in the set. */
  readonly size: number;
}

export function createDeduplicator(stored: StoredCopies, max = maxRemembered): Deduplicator {
  let remembered = createRememberedRetries(max);
  /** What a recovery found. When they were written is not known, so their hour begins with the next message. */
  let found: { readonly batches: readonly Identity[]; readonly complete: boolean } | undefined;

  /** DEDUP-2. */
  function rememberFound(untilMs: number): void {
    if (found === undefined) return;
    if (!found.complete) remembered.suspectAll(untilMs);
    for (const { tenant, batchId } of found.batches) remembered.add(keyOf(tenant, batchId), untilMs);
    found = undefined;
  }

  return {
    begin(batches, complete) {
      remembered = createRememberedRetries(max);
      found = { batches, complete };
    },
    async plan(block) {
      rememberFound(block.firstTimeMs + suspectMs);
      remembered.expire(block.firstTimeMs);
      const all = remembered.suspectsAll(block.firstTimeMs);
      if (!block.retried && remembered.size === 0 && !all) return block;
      const retries = retriesIn(block);
      const suspects = suspectsIn(block, all ? 'all' : inEither(retries, remembered));
      const judged = suspects.length === 0 ? [] : await judgeCopies(stored, block, suspects);
      for (const key of retries.keys) remembered.add(key, block.lastTimeMs + suspectMs);
      return leaveOut(block, judged);
    },
    get size() {
      return remembered.size;
    },
  };
}
