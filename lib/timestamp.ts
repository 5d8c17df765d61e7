/**
 * Reads dates and times as text, strictly: it refuses what is no date. Date.parse makes 2 March of 2026-02-30,
 * and the next day of T24:00:00Z.
 */

export interface Timestamp {
  /** Since 1970-01-01T00:00:00Z; negative before. */
  readonly seconds: number;
  /** 0 to 999,999,999, counted forward from `seconds`. */
  readonly nanos: number;
}

/** 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z: the range of google.protobuf.Timestamp, in seconds. */
export const timestampSeconds = { min: -62_135_596_800, max: 253_402_300_799 } as const;

const monthDays = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/** Whether the Gregorian calendar has this day. Years are 1 to 9999. */
export function isDay(year: number, month: number, day: number): boolean {
  // A part that is NaN fails each of these.
  if (!(year >= 1 && year <= 9999 && month >= 1 && month <= 12 && day >= 1)) return false;
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  return day <= (month === 2 && leap ? 29 : (monthDays[month - 1] as number));
}

/** Whether the text is a day that exists, as YYYY-MM-DD. */
export function isDate(text: string): boolean {
  const match = /^(\d{4})-(\d{2})-(\d{2})$/.exec(text);
  return match !== null && isDay(Number(match[1]), Number(match[2]), Number(match[3]));
}

/** Days from 1970-01-01 to a day that exists. */
export function daysSince1970(year: number, month: number, day: number): number {
  // Years that begin in March have their leap day at the end, so the days before a month follow one formula.
  const shifted = month <= 2 ? year - 1 : year;
  const ofYear = Math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1;
  return (
    365 * shifted + Math.floor(shifted / 4) - Math.floor(shifted / 100) + Math.floor(shifted / 400) + ofYear - 719_468
  );
}

/**
 * Reads an RFC 3339 time as ProtoJSON has it, from bytes from … to-1: "2026-01-31T12:00:00Z", up to nine digits of a fraction, "Z" or
 * an offset such as "+02:00", capital letters. No leap seconds, no 24:00. Years 0001 to 9999, also in UTC.
 * @returns undefined when it is no such time
 */
export function parseTimestamp(bytes: Uint8Array, from: number, to: number): Timestamp | undefined {
  if (to - from < 20) return undefined;
  const year = digits(bytes, from, 4);
  const month = digits(bytes, from + 5, 2);
  const day = digits(bytes, from + 8, 2);
  const hour = digits(bytes, from + 11, 2);
  const minute = digits(bytes, from + 14, 2);
  const second = digits(bytes, from + 17, 2);
  const separated =
    bytes[from + 4] === 0x2d &&
    bytes[from + 7] === 0x2d &&
    bytes[from + 10] === 0x54 &&
    bytes[from + 13] === 0x3a &&
    bytes[from + 16] === 0x3a;
  if (!separated || !(hour <= 23 && minute <= 59 && second <= 59) || !isDay(year, month, day)) return undefined;
  let p = from + 19;
  let nanos = 0;
  if (bytes[p] === 0x2e) {
    const start = ++p;
    while (p < to && p - start < 9 && (bytes[p] as number) >= 0x30 && (bytes[p] as number) <= 0x39) p++;
    if (p === start) return undefined;
    nanos = digits(bytes, start, p - start) * 10 ** (9 - (p - start));
  }
  const offset = offsetSeconds(bytes, p, to);
  if (offset === undefined) return undefined;
  const seconds = daysSince1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
  return seconds < timestampSeconds.min || seconds > timestampSeconds.max ? undefined : { seconds, nanos };
}

/** The `count` digits at p as a number; NaN when one is none. */
function digits(bytes: Uint8Array, p: number, count: number): number {
  let value = 0;
  for (let i = p; i < p + count; i++) {
    const digit = (bytes[i] as number) - 0x30;
    value = digit >= 0 && digit <= 9 ? value * 10 + digit : Number.NaN;
  }
  return value;
}

/** East of UTC, of "Z" or "+02:00" in bytes p … to-1, which must hold nothing else. */
function offsetSeconds(bytes: Uint8Array, p: number, to: number): number | undefined {
  const sign = bytes[p];
  if (sign === 0x5a) return p + 1 === to ? 0 : undefined;
  if ((sign !== 0x2b && sign !== 0x2d) || p + 6 !== to || bytes[p + 3] !== 0x3a) return undefined;
  const hours = digits(bytes, p + 1, 2);
  const minutes = digits(bytes, p + 4, 2);
  if (!(hours <= 23 && minutes <= 59)) return undefined;
  return (sign === 0x2b ? 1 : -1) * (hours * 3_600 + minutes * 60);
}

/** The day in UTC, as `2026-11-21`. */
export const utcDay = (timeMs: number): string => new Date(timeMs).toISOString().slice(0, 10);
