/**
 * How long after a step of the load everything is as before: a measure is back when it stays within its base's band. Pure.
 */
import type { Sample } from '../slope.js';

export interface Band {
  /** Values up to this are as in the base. */
  readonly most: number;
}

/**
 * The band of a base: what 95 of 100 of its samples stay below, and half as much again; but not below `least`, under which
 * no caller notices a difference.
 */
export function bandOf(base: readonly Sample[], least: number): Band {
  const values = base.map((sample) => sample.value).filter(Number.isFinite);
  if (values.length === 0) return { most: least };
  values.sort((a, b) => a - b);
  return { most: Math.max(least, values[Math.min(values.length - 1, Math.floor(values.length * 0.95))]! * 1.5) };
}

/**
 * Seconds from `end` until the measure is within the band and stays there for `steadySeconds`; Infinity when it never does.
 * Samples lie at the end of what they measured. One that is missing (NaN: nothing ended in that time) is not within.
 */
export function recoverySeconds(samples: readonly Sample[], band: Band, end: number, steadySeconds = 2): number {
  let back: number | undefined;
  for (const { at, value } of samples) {
    if (at <= end) continue;
    if (!(value <= band.most)) back = undefined;
    else back ??= at;
    if (back !== undefined && at - back >= steadySeconds) return back - end;
  }
  return Number.POSITIVE_INFINITY;
}
