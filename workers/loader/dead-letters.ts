/**
 * LOAD-6: finds what of a block cannot be stored. Pure, except for the trials, which are injected.
 *
 *   DLQ-1  A message that is not a sequence of whole batches is taken out before the INSERT: a length that is wrong would make
 *      ClickHouse swallow bytes of the next message.
 *   DLQ-2  When ClickHouse refuses a block for its content, the worker tries batches without storing anything: halves, then halves of
 *       the refused half, until each offending batch is alone, and refused twice. The others stay in the block. The block is then
 *       planned again: a copy that LOAD-5 had left out may be whole where the one before it was not.
 *   DLQ-3  When nearly all batches of a block are refused, one by one, the batches are not the cause (a broken table, a setting, a bug
 *       of ours). Nothing is taken out, and the shard waits with an alarm. The same holds when a surely good batch is refused.
 *   DLQ-4  A batch with fields that its gateway's contract did not know is judged by the contract of this build: events that break
 *      one of its rules leave the batch, and the others are stored.
 *   DLQ-5  An unlisted error may as well be a server in trouble. Then a batch that is surely good must pass before and after
 *      each refusal that counts, and nothing is taken out when more than half of the batches are refused.
 */
import type { DeadKind } from '../../lib/dead-letters.js';
import { type Block, contentOf } from './block.js';
import { batchIdIn, contractIn, eachFrame, eventsIn, type Frame, framed, partsWithout, tenantIn } from './frames.js';

/** A batch, or a message, that is taken out of a block. */
export interface Dead {
  readonly kind: DeadKind;
  readonly reason: string;
  readonly sequence: number;
  readonly index: number;
  readonly tenant: string;
  readonly batchId: string;
  readonly events: number;
  readonly bytes: Uint8Array;
}

export interface Parted {
  /** Without the dead ones; they are counted in it. The same object when there is none. */
  readonly block: Block;
  readonly dead: readonly Dead[];
}

/** What is left of a block while its dead are taken out. */
class Rest {
  readonly dead: Dead[] = [];
  private readonly messages: Uint8Array[] = [];
  private readonly sequences: number[] = [];
  private readonly batchIndexes: number[] = [];

  constructor(private readonly block: Block) {}

  /** Bytes of the block's message `i` that stay; their first batch is the `index`-th of those bytes. */
  keep(i: number, index: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.messages.push(bytes);
    this.sequences.push(this.block.sequences[i] as number);
    this.batchIndexes.push(this.placeOf(i, index));
  }

  deadLetter(i: number, index: number, one: Omit<Dead, 'sequence' | 'index'>): void {
    this.dead.push({ ...one, sequence: this.block.sequences[i] as number, index: this.placeOf(i, index) });
  }

  parted(): Parted {
    const { block, dead, messages, sequences, batchIndexes } = this;
    if (dead.length === 0) return { block, dead };
    const events = dead.reduce((sum, one) => sum + one.events, 0);
    const counts = { rows: block.rows - events, dead: block.dead + events };
    return { block: { ...block, ...counts, messages, sequences, batchIndexes }, dead };
  }

  private placeOf(i: number, index: number): number {
    return (this.block.batchIndexes[i] as number) + index;
  }
}

/** DLQ-1. */
export function partUnframed(block: Block): Parted {
  if (!block.unframed) return { block, dead: [] };
  const rest = new Rest(block);
  block.messages.forEach((bytes, i) => {
    const { unframed, rows } = contentOf(bytes);
    if (!unframed) {
      rest.keep(i, 0, bytes);
      return;
    }
    let tenant = '';
    let batchId = '';
    eachFrame(bytes, (frame) => {
      tenant ||= tenantIn(bytes, frame);
      batchId ||= batchIdIn(bytes, frame);
    });
    const reason = 'the message is not a sequence of whole length-delimited StoredBatch';
    rest.deadLetter(i, 0, { kind: 'unframed', reason, tenant, batchId, events: rows, bytes });
  });
  return rest.parted();
}

/** What a contract says of encoded events. */
export interface ContractVerdict {
  /** Events that break a rule, and how the first one does. */
  readonly refused: number;
  readonly reason: string;
  /** The others, encoded. */
  readonly rest: Uint8Array;
}

export interface Contract {
  readonly revision: string;
  /** @param events encoded fields `events` of a batch */
  judge(events: Uint8Array): ContractVerdict;
}

/** DLQ-4. */
export function partRescanned(block: Block, contract: Contract): Parted {
  if (!block.unknownFields) return { block, dead: [] };
  const rest = new Rest(block);
  block.messages.forEach((bytes, i) => {
    let begin = 0;
    let first = 0;
    eachFrame(bytes, (frame, index) => {
      if (!frame.unknownFields || contractIn(bytes, frame) === contract.revision) return;
      const judged = rescan(bytes, frame, contract);
      if (judged === undefined) return;
      rest.keep(i, first, bytes.subarray(begin, frame.from));
      if (judged.left !== undefined) rest.keep(i, index, judged.left);
      begin = frame.to;
      first = index + 1;
      rest.deadLetter(i, index, {
        kind: 'rescan',
        reason: judged.reason,
        tenant: tenantIn(bytes, frame),
        batchId: batchIdIn(bytes, frame),
        events: judged.refused,
        bytes: bytes.subarray(frame.from, frame.to),
      });
    });
    rest.keep(i, first, bytes.subarray(begin));
  });
  return rest.parted();
}

/** Undefined: nothing of it is refused, or ClickHouse has to judge. */
function rescan(
  bytes: Uint8Array,
  frame: Frame,
  contract: Contract,
): { readonly refused: number; readonly reason: string; readonly left: Uint8Array | undefined } | undefined {
  const events = eventsIn(bytes, frame);
  if (events === undefined || events.length === 0) return undefined;
  const { refused, reason, rest } = contract.judge(
    Buffer.concat(events.map(({ from, to }) => bytes.subarray(from, to))),
  );
  if (refused === 0) return undefined;
  const left = rest.length === 0 ? undefined : framed([...partsWithout(bytes, frame, events, () => true), rest]);
  return { refused, reason: `${refused} of ${events.length} events: ${reason}`, left };
}

/**
 * Tries batches without storing anything: why ClickHouse refuses them for their content, undefined when it does not.
 * Rejects when that cannot be found out now.
 */
export type Trial = (messages: readonly Uint8Array[]) => Promise<string | undefined>;

/** DLQ-3: so many batches are tried alone, and so many of them have to be refused. */
const sampleSize = 20;
const maxRefused = 18;

export interface SearchOptions {
  /** DLQ-5: the error is an unlisted one. */
  readonly doubtful?: boolean;
  /** DLQ-2: a batch is refused. The search goes on when this resolves. */
  readonly found?: (dead: Dead) => Promise<void>;
}

/**
 * DLQ-2, DLQ-3, DLQ-5. The same block when no batch is refused, or too many are.
 * @param control a batch that is surely good
 */
export async function partRefused(
  block: Block,
  trial: Trial,
  control: Uint8Array,
  { doubtful = false, found }: SearchOptions = {},
): Promise<Parted> {
  /** Where each batch lies: which message, and from where to where in it. */
  const message: number[] = [];
  const from: number[] = [];
  const to: number[] = [];
  block.messages.forEach((bytes, i) => {
    eachFrame(bytes, (frame) => {
      message.push(i);
      from.push(frame.from);
      to.push(frame.to);
    });
  });
  const size = message.length;
  /** The bytes of batches a … b-1: windows on the messages, one for each. */
  const bytesOf = (a: number, b: number): Uint8Array[] => {
    const parts: Uint8Array[] = [];
    for (let i = a; i < b; ) {
      const of = message[i] as number;
      let last = i;
      while (last + 1 < b && message[last + 1] === of) last++;
      parts.push((block.messages[of] as Uint8Array).subarray(from[i] as number, to[last] as number));
      i = last + 1;
    }
    return parts;
  };
  const refuses = (a: number, b: number): Promise<string | undefined> => trial(bytesOf(a, b));
  const nothing: Parted = { block, dead: [] };

  if ((await refuses(0, size)) === undefined || (await trial([control])) !== undefined) return nothing;
  if (await tooMany(size, doubtful, (at) => refuses(at, at + 1))) return nothing;

  /** Twice: to ClickHouse a body that was cut off on its way looks like bytes that cannot be read. */
  async function verdict(at: number): Promise<string | undefined> {
    let reason: string | undefined;
    for (let i = 0; i < 2; i++) {
      reason = await refuses(at, at + 1);
      if (reason === undefined) return undefined;
      // DLQ-5
      if (doubtful && (await trial([control])) !== undefined) throw new Error('ClickHouse refuses what is surely good');
    }
    return reason;
  }

  const reasons = new Map<number, string>();
  /** @param sure some batch of a … b-1 is refused */
  async function search(a: number, b: number, sure: boolean): Promise<boolean> {
    if (a === b) return false;
    if (b - a === 1) {
      const reason = await verdict(a);
      if (reason === undefined) return false;
      reasons.set(a, reason);
      let at = 0;
      const [dead] = without(block, () => (at++ === a ? reason : undefined)).dead;
      if (dead !== undefined) await found?.(dead);
      return true;
    }
    if (!sure && (await refuses(a, b)) === undefined) return false;
    const middle = (a + b) >> 1;
    const inFirst = await search(a, middle, false);
    const inSecond = await search(middle, b, !inFirst);
    return inFirst || inSecond;
  }
  await search(0, size, true);
  if (reasons.size === 0) return nothing;
  let number = 0;
  return without(block, () => reasons.get(number++));
}

/** DLQ-3, DLQ-5: whether so many of a sample are refused that it is not the batches' fault. */
async function tooMany(
  size: number,
  doubtful: boolean,
  refuses: (at: number) => Promise<string | undefined>,
): Promise<boolean> {
  // Of a few batches all may be bad. A doubtful error needs at least one that is not.
  const sample = size >= sampleSize ? sampleSize : doubtful && size > 1 ? size : 0;
  let refused = 0;
  for (let i = 0; i < sample; i++) {
    if ((await refuses(Math.floor((i * size) / sample))) !== undefined) refused++;
  }
  return sample > 0 && refused > (doubtful ? sample / 2 : maxRefused);
}

/** The name of a batch's place in the log. */
export const placeOf = ({ sequence, index }: { readonly sequence: number; readonly index: number }): string =>
  `${sequence}.${index}`;

/** DLQ-2. The block without the batches of those places. */
export function withoutPlaces(block: Block, refused: ReadonlyMap<string, Dead>): Block {
  if (refused.size === 0) return block;
  return without(block, (sequence, index) => refused.get(placeOf({ sequence, index }))?.reason).block;
}

/** The block without the batches that there is a reason against, asked for in their order. */
function without(block: Block, reasonOf: (sequence: number, index: number) => string | undefined): Parted {
  const rest = new Rest(block);
  block.messages.forEach((bytes, i) => {
    let begin = 0;
    let first = 0;
    eachFrame(bytes, (frame, index) => {
      const reason = reasonOf(block.sequences[i] as number, (block.batchIndexes[i] as number) + index);
      if (reason === undefined) return;
      rest.keep(i, first, bytes.subarray(begin, frame.from));
      begin = frame.to;
      first = index + 1;
      rest.deadLetter(i, index, {
        kind: 'refused',
        reason,
        tenant: tenantIn(bytes, frame),
        batchId: batchIdIn(bytes, frame),
        events: frame.events,
        bytes: bytes.subarray(frame.from, frame.to),
      });
    });
    rest.keep(i, first, bytes.subarray(begin));
  });
  return rest.parted();
}
