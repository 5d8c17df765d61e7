/**
 * How long to wait before the next try. Waits double from the first to the last, and jitter keeps many processes from trying at the same
 * moment.
 */

/** Ms. */
export interface Waits {
  readonly first: number;
  readonly last: number;
}

/** The wait after so many failures in a row (from 1), ms, without jitter. */
export const backOff = ({ first, last }: Waits, failures: number): number =>
  Math.min(first * 2 ** (failures - 1), last);

/** A wait of this process, shortened by up to a half. @param random 0 to 1 */
export const jittered = (ms: number, random: () => number = Math.random): number => ms * (0.5 + random() / 2);

/** What a client is to wait: `ms`, a half less or more. Whole ms. @param random 0 to 1 */
export const retryAfter = (ms: number, random: () => number = Math.random): number => Math.round(ms * (0.5 + random()));
