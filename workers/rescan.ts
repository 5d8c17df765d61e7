/**
 * The contract of this build, for batches whose gateway knew less of it (P4 in poison.ts).
 */
import { contractRevision, scanBatch } from '../lib/contract/index.js';
import { SluiceError } from '../lib/errors.js';
import type { Contract, Verdict } from './poison.js';

const nothing = new Uint8Array(0);

function judge(events: Uint8Array): Verdict {
  try {
    const { rejected, rejections, bytes } = scanBatch(events, { maxEvents: Number.POSITIVE_INFINITY });
    const [first] = rejections;
    const reason = first === undefined ? '' : `event ${first.index}, ${first.field}: ${first.message}`;
    return { refused: rejected, reason, rest: bytes };
  } catch (error) {
    // Not even a sequence of events: no gateway of ours wrote it, and ClickHouse has the word.
    if (error instanceof SluiceError) return { refused: 0, reason: '', rest: nothing };
    throw error;
  }
}

export const currentContract: Contract = { revision: contractRevision, judge };
