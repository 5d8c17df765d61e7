/**
 * Several rounds made one: the median of each figure. One slow round, or one fast, does not move it.
 */
import type { Phase } from './measure.js';

/** The middle value; of an even number the mean of the middle two. NaN of nothing, values that are no number left out. */
export function median(values: readonly number[]): number {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The median of each key. */
export function medianOf(records: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const keys = new Set(records.flatMap((record) => Object.keys(record)));
  return Object.fromEntries(
    [...keys].map((key) => [key, median(records.map((record) => record[key] ?? Number.NaN))] as const),
  );
}

/** CPU-seconds per million events of some processes together. */
export const cpuTogether = (phase: Pick<Phase, 'cpu_s_per_million'>, roles: readonly string[]): number =>
  roles.reduce((sum, role) => sum + (phase.cpu_s_per_million[role] ?? Number.NaN), 0);

/** Median, over rounds, of the ratio within a round: what the machine did to one round it did to both sides. */
export function ratioOfRounds(mine: readonly number[], theirs: readonly number[]): number {
  return median(mine.map((value, round) => value / (theirs[round] ?? Number.NaN)));
}

/** Those that take turns in a round, begun by another one each time. */
export function rotated<T>(items: readonly T[], round: number): T[] {
  const by = items.length === 0 ? 0 : round % items.length;
  return [...items.slice(by), ...items.slice(0, by)];
}
