/**
 * Readers of the command line's values, for every command of the benchmarks.
 */
import { InvalidArgumentError } from 'commander';
import { parseNumber, parseWhole } from '../lib/number-text.js';
import type { RoleName } from '../lib/testing/role-process.js';
import { parseSize } from '../lib/units.js';

/** A number above 0, at most `most`; whole unless said otherwise. */
export const positive = (most: number, wholeOnly = true) => {
  return (text: string): number => {
    const value = wholeOnly ? parseWhole(text) : parseNumber(text);
    if (value === undefined || value <= 0 || value > most) {
      throw new InvalidArgumentError(`Give a ${wholeOnly ? 'whole ' : ''}number above 0, at most ${most}.`);
    }
    return value;
  };
};

/** `1,20,500`: whole numbers above 0. */
export const positiveList = (most: number) => {
  return (text: string): number[] => text.split(',').map(positive(most));
};

/** Events per second, or as many as answers allow. */
export function parseRate(text: string): number | 'max' {
  return text === 'max' ? 'max' : positive(100_000_000, false)(text);
}

/** `gateway.publish-window=64`, added to those before. */
export function parseSet(text: string, before: readonly [RoleName, string][]): [RoleName, string][] {
  const match = /^(gateway|worker|clickhouse)\.([a-z-]+)=(.*)$/.exec(text);
  if (match === null) throw new InvalidArgumentError('Give it as gateway.publish-window=64: role, flag, value.');
  return [...before, [match[1] as RoleName, `--${match[2]}=${match[3]}`]];
}

/** `2GiB`, as the roles take it. */
export function sizeFlag(text: string): string {
  if (Number.isNaN(parseSize(text))) throw new InvalidArgumentError('Give a size like 512MiB or 2GiB.');
  return text;
}
