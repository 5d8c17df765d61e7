/**
 * Numbers as ProtoJSON has them: in JSON's grammar, bare or in quotes, with every digit. `1e3` and `1.0` are whole numbers, `1.5` is
 * none; `"0x10"`, `" 12 "`, `"+5"` and `""` are no numbers at all.
 */
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { FieldFault, shown } from './fault.js';
import { numberEnd } from './text.js';

/** The widths of the kinds that hold whole numbers. */
const bounds = {
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  sint32: [-(2n ** 31n), 2n ** 31n - 1n],
  sfixed32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
  fixed32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  sint64: [-(2n ** 63n), 2n ** 63n - 1n],
  sfixed64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
  fixed64: [0n, 2n ** 64n - 1n],
} as const;
export type WholeKind = keyof typeof bounds;

export const isWholeKind = (kind: string): kind is WholeKind => Object.hasOwn(bounds, kind);

/** Numbers of so many digits are exact as doubles. */
const exactDigits = 15;
/** No 64-bit number has more. */
const maxDigits = 20;
/** Exponents are limited to this: more than a body has digits to make up for it. */
const largestExponent = 10_000_000;

function notANumber(bytes: Uint8Array, from: number, to: number, wanted: string): never {
  throw new FieldFault(RejectionCode.TYPE, () => `is "${shown(bytes, from, to)}", which is no ${wanted}`);
}

/**
 * The whole number in bytes from … to-1: a bigint only where a number would not be exact.
 * @throws FieldFault when it is none, or does not fit its kind
 */
export function wholeNumber(bytes: Uint8Array, from: number, to: number, kind: WholeKind): number | bigint {
  const value = plainNumber(bytes, from, to) ?? oddNumber(bytes, from, to, kind);
  const [min, max] = bounds[kind];
  if (value < min || value > max) outOfRange(bytes, from, to, kind);
  return value;
}

function outOfRange(bytes: Uint8Array, from: number, to: number, kind: WholeKind): never {
  const [min, max] = bounds[kind];
  throw new FieldFault(
    RejectionCode.OUT_OF_RANGE,
    () => `is ${shown(bytes, from, to)}; a ${kind} holds ${min} to ${max}`,
  );
}

/** Digits alone, and not many: what nearly all numbers are. */
function plainNumber(bytes: Uint8Array, from: number, to: number): number | undefined {
  const negative = bytes[from] === 0x2d;
  const first = negative ? from + 1 : from;
  if (to - first > exactDigits || to === first || (bytes[first] === 0x30 && to - first > 1)) return undefined;
  let value = 0;
  for (let p = first; p < to; p++) {
    const digit = (bytes[p] as number) - 0x30;
    if (digit < 0 || digit > 9) return undefined;
    value = value * 10 + digit;
  }
  return negative && value !== 0 ? -value : value;
}

/** @returns digits in front of an exponent, without the zeros at their end, and where they end */
function significantDigits(
  bytes: Uint8Array,
  from: number,
  to: number,
): { digits: string; zeros: number; fraction: number; end: number } {
  let digits = '';
  /** Digits after the point, and zeros that `digits` leaves off at its end. */
  let fraction = 0;
  let zeros = 0;
  let p = from;
  let behindPoint = false;
  for (; p < to; p++) {
    const byte = bytes[p] as number;
    if (byte === 0x65 || byte === 0x45) break;
    if (byte === 0x2e) {
      behindPoint = true;
      continue;
    }
    if (behindPoint) fraction++;
    if (byte === 0x30) {
      zeros++;
      continue;
    }
    if (digits !== '' && digits.length <= maxDigits) digits += '0'.repeat(Math.min(zeros, maxDigits));
    zeros = 0;
    if (digits.length <= maxDigits) digits += String.fromCharCode(byte);
  }
  return { digits, zeros, fraction, end: p };
}

/** Fractions, exponents, many digits. Its cost follows the text's length, and it makes no bigint of more than 20 digits. */
function oddNumber(bytes: Uint8Array, from: number, to: number, kind: WholeKind): bigint {
  if (numberEnd(bytes, from, to) !== to) notANumber(bytes, from, to, 'whole number');
  const negative = bytes[from] === 0x2d;
  const { digits, zeros, fraction, end: p } = significantDigits(bytes, negative ? from + 1 : from, to);
  if (digits === '') return 0n;
  const exponent = p < to ? exponentIn(bytes, p + 1, to) : 0;
  const scale = zeros - fraction + exponent;
  if (scale < 0) notANumber(bytes, from, to, 'whole number');
  if (digits.length + scale > maxDigits) outOfRange(bytes, from, to, kind);
  const value = BigInt(digits + '0'.repeat(scale));
  return negative ? -value : value;
}

function exponentIn(bytes: Uint8Array, from: number, to: number): number {
  const negative = bytes[from] === 0x2d;
  let value = 0;
  for (let p = negative || bytes[from] === 0x2b ? from + 1 : from; p < to; p++) {
    value = Math.min(value * 10 + ((bytes[p] as number) - 0x30), largestExponent);
  }
  return negative ? -value : value;
}

const powersOfTen = Array.from({ length: exactDigits + 1 }, (_, i) => 10 ** i);

/**
 * The number in bytes from … to-1 as a double. Quoted ones may be "NaN", "Infinity" and "-Infinity" too.
 * @throws FieldFault when it is none, or too great
 */
export function floatingNumber(bytes: Uint8Array, from: number, to: number, kind: 'double' | 'float'): number {
  const value = plainDecimal(bytes, from, to) ?? oddDecimal(bytes, from, to);
  const beyond = kind === 'double' ? !Number.isFinite(value) : !Number.isFinite(Math.fround(value));
  if (beyond && isNumber(bytes, from, to)) {
    throw new FieldFault(RejectionCode.OUT_OF_RANGE, () => `is ${shown(bytes, from, to)}, too great for a ${kind}`);
  }
  return value;
}

const isNumber = (bytes: Uint8Array, from: number, to: number): boolean => numberEnd(bytes, from, to) === to;

/** At most 15 digits and no exponent: their quotient by a power of ten is rounded once, which is right. */
function plainDecimal(bytes: Uint8Array, from: number, to: number): number | undefined {
  if (to - from > exactDigits) return undefined;
  const negative = bytes[from] === 0x2d;
  const first = negative ? from + 1 : from;
  let value = 0;
  let point = -1;
  for (let p = first; p < to; p++) {
    const byte = bytes[p] as number;
    if (byte === 0x2e && point < 0 && p > first) point = p;
    else if (byte >= 0x30 && byte <= 0x39) value = value * 10 + (byte - 0x30);
    else return undefined;
  }
  if (to === first || point === to - 1) return undefined;
  if (bytes[first] === 0x30 && to - first > 1 && point !== first + 1) return undefined;
  const exact = point < 0 ? value : value / (powersOfTen[to - point - 1] as number);
  return negative ? -exact : exact;
}

function oddDecimal(bytes: Uint8Array, from: number, to: number): number {
  const text = to - from <= 9 ? Buffer.from(bytes.subarray(from, to)).toString('latin1') : '';
  if (text === 'NaN') return Number.NaN;
  if (text === 'Infinity') return Number.POSITIVE_INFINITY;
  if (text === '-Infinity') return Number.NEGATIVE_INFINITY;
  if (!isNumber(bytes, from, to)) notANumber(bytes, from, to, 'number');
  return Number(Buffer.from(bytes.subarray(from, to)).toString('latin1'));
}
