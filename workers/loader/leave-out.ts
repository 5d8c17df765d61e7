/** Makes a block without the copies that are stored already (LOAD-5). */
import type { Block } from './block.js';
import type { CopyVerdict, JudgedCopy } from './copy-verdicts.js';
import { framed, partsWithout } from './frames.js';
import type { Copy } from './suspects.js';

/** A copy that loses all or some of its events. */
interface Loser {
  readonly copy: Copy;
  readonly verdict: Exclude<CopyVerdict, { readonly kind: 'whole' }>;
}

/** Bytes of a message that stay, and which batch of the message they begin with. */
interface Piece {
  readonly bytes: Uint8Array;
  readonly index: number;
}

const isLoser = (judged: JudgedCopy): judged is Loser => judged.verdict.kind !== 'whole';

/** By message, and in each in the order of its batches. */
function byMessage(losers: readonly Loser[]): Map<number, Loser[]> {
  const found = new Map<number, Loser[]>();
  for (const loser of [...losers].sort((a, b) => a.copy.index - b.copy.index)) {
    const { message } = loser.copy;
    const others = found.get(message);
    if (others === undefined) found.set(message, [loser]);
    else others.push(loser);
  }
  return found;
}

/** Windows on the message, and new buffers for the batches that lose a part. */
function* piecesOf(data: Uint8Array, losers: readonly Loser[]): Generator<Piece> {
  let from = 0;
  let first = 0;
  for (const { copy, verdict } of losers) {
    const { frame, index } = copy;
    yield { bytes: data.subarray(from, frame.from), index: first };
    if (verdict.kind === 'some') {
      const { events, keep } = verdict;
      yield { bytes: framed(partsWithout(data, frame, events, (i) => keep[i] !== true)), index };
    }
    from = frame.to;
    first = index + 1;
  }
  yield { bytes: data.subarray(from), index: first };
}

/** The block without what these copies lose. The same object when they lose nothing. */
export function leaveOut(block: Block, judged: readonly JudgedCopy[]): Block {
  const losers = judged.filter(isLoser);
  if (losers.length === 0) return block;
  let { rows, duplicate } = block;
  for (const { copy, verdict } of losers) {
    const stays = verdict.kind === 'some' ? verdict.keep.filter(Boolean).length : 0;
    duplicate += verdict.kind === 'some' ? verdict.events.length - stays : verdict.events;
    rows -= copy.frame.events - stays;
  }
  const messages: Uint8Array[] = [];
  const sequences: number[] = [];
  const batchIndexes: number[] = [];
  const losersOf = byMessage(losers);
  block.messages.forEach((data, message) => {
    for (const { bytes, index } of piecesOf(data, losersOf.get(message) ?? [])) {
      if (bytes.length === 0) continue;
      messages.push(bytes);
      sequences.push(block.sequences[message] as number);
      batchIndexes.push((block.batchIndexes[message] as number) + index);
    }
  });
  return { ...block, messages, sequences, batchIndexes, rows, duplicate };
}
