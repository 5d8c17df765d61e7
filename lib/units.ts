/**
 * Units of size and time: as numbers, and as people write them.
 */
import { parseNumber } from './number-text.js';

/** Bytes. */
export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

/** Ms. */
export const minuteMs = 60_000;
export const hourMs = 60 * minuteMs;
export const dayMs = 24 * hourMs;

const sizes: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['b', 1],
  ['kib', KiB],
  ['mib', MiB],
  ['gib', GiB],
]);
const times: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['ms', 1],
  ['s', 1_000],
  ['m', minuteMs],
  ['min', minuteMs],
  ['h', hourMs],
  ['d', dayMs],
]);

function parse(text: string, units: ReadonlyMap<string, number>): number {
  const [, digits = '', unit = ''] = /^([\d.]+) ?([a-z]*)$/i.exec(text) ?? [];
  return (parseNumber(digits) ?? Number.NaN) * (units.get(unit.toLowerCase()) ?? Number.NaN);
}

/** `64MiB`, `1024`: bytes; NaN when it is no size. */
export const parseSize = (text: string): number => parse(text, sizes);

/** `500ms`, `10s`, `1h`: ms; NaN when it is no time. */
export const parseTime = (text: string): number => parse(text, times);

/** In the largest unit that leaves a whole number: `64MiB`. */
export function sizeText(bytes: number): string {
  for (const [name, size] of [['GiB', GiB] as const, ['MiB', MiB] as const, ['KiB', KiB] as const]) {
    if (bytes >= size && bytes % size === 0) return `${bytes / size}${name}`;
  }
  return String(bytes);
}
