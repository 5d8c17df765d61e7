/** What does not add up in an audit. */

/** Something that does not add up. */
export interface Fault {
  /** Undefined for a fault of the installation as a whole. */
  readonly shard: number | undefined;
  readonly generation: string;
  /** Undefined where there is no block. */
  readonly block: number | undefined;
  /** Log sequences at fault, first and last. */
  readonly lo: number;
  readonly hi: number;
  /** Events: above 0 too few are stored, below 0 too many; undefined when their number is no longer known. */
  readonly difference: number | undefined;
  readonly message: string;
}

/** Faults that are named; the others are counted. */
export const maxFaults = 100;

/** A fault of one shard, as the check that finds it tells it. */
export type ShardFault = Pick<Fault, 'lo' | 'hi' | 'message'> & Partial<Pick<Fault, 'block' | 'difference'>>;

/** Reports the faults of one shard. */
export type ReportFault = (found: ShardFault) => void;

export interface FaultList {
  /** A fault of the installation as a whole. */
  add(message: string): void;
  /** For the faults of one shard. */
  of(shard: number, generation: string): ReportFault;
  /** Worth a line, and no fault. */
  note(text: string): void;
  readonly notes: readonly string[];
  /** The faults so far. */
  result(): FaultSums;
}

export interface FaultSums {
  /** Sum of the faults' differences without their signs, so that a loss and a double do not hide each other. */
  readonly difference: number;
  /** How many there are; the first {@link maxFaults} are named. */
  readonly faultCount: number;
  readonly faults: readonly Fault[];
}

export function createFaultList(): FaultList {
  const faults: Fault[] = [];
  const notes: string[] = [];
  let faultCount = 0;
  let difference = 0;
  const report = (found: Fault): void => {
    faultCount++;
    difference += Math.abs(found.difference ?? 0);
    if (faults.length < maxFaults) faults.push(found);
  };
  return {
    notes,
    add(message) {
      report({ shard: undefined, generation: '', block: undefined, lo: 0, hi: 0, difference: undefined, message });
    },
    of:
      (shard, generation) =>
      ({ block, lo, hi, difference: events, message }) =>
        report({ shard, generation, block, lo, hi, difference: events, message }),
    note(text) {
      if (notes.length < maxFaults) notes.push(text);
    },
    result: () => ({ difference, faultCount, faults }),
  };
}
