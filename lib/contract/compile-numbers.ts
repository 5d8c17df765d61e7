/**
 * The part of the compiler that emits the checks of numbers and enums. The lines use the locals of a compiled function:
 * p (the position), x (the value), b and v (the bytes and a view of them), parts (wire.ts, varintParts).
 */
import { Reason } from './faults.js';
import type { FieldNode, Rules } from './rules.js';

/** Gives the statement that refuses the event; `value` is the expression for what is at fault. */
export type Fail = (reason: Reason, value?: string) => string;

/**
 * Lines that check the number at p, which must end before `limit`, and move p behind it. `setOf` makes a constant that is
 * a Set of these numbers and returns its name.
 */
export function numberLines(
  field: FieldNode,
  limit: string,
  fail: Fail,
  setOf: (numbers: number[]) => string,
): string[] {
  const { kind, rules } = field;
  switch (kind) {
    case 'double':
      return fixed(8, '(b[p + 7] & 0x7f) === 0x7f && b[p + 6] >= 0xf0', 'v.getFloat64(p, true)');
    case 'float':
      return fixed(4, '(b[p + 3] & 0x7f) === 0x7f && b[p + 2] >= 0x80', 'v.getFloat32(p, true)');
    case 'fixed32':
      return fixed(4, '', 'v.getUint32(p, true)');
    case 'sfixed32':
      return fixed(4, '', 'v.getInt32(p, true)');
    case 'fixed64':
      return fixed(8, '', 'v.getUint32(p + 4, true) * 4294967296 + v.getUint32(p, true)');
    case 'sfixed64':
      return fixed(8, '', 'v.getInt32(p + 4, true) * 4294967296 + v.getUint32(p, true)');
    case 'string':
    case 'bytes':
    case 'message':
      throw new Error(`${field.name} is no number`);
    default:
      return [
        `if (p >= ${limit}) ${fail(Reason.Truncated)}`,
        'x = b[p++];',
        'if (x >= 0x80) {',
        `p = varint(b, p - 1, ${limit});`,
        `if (p < 0) ${fail(Reason.Varint)}`,
        ...wide[kind].map((line) => line.replace('FAIL', fail(Reason.Width))),
        zigzag.has(kind) ? '} else x = (x >>> 1) ^ -(x & 1);' : '}',
        ...(kind === 'bool' ? [`if (x > 1) ${fail(Reason.Width, 'x')}`] : []),
        ...(kind === 'enum' ? enumeration(field, fail, setOf) : range(rules, 'x', fail)),
      ];
  }

  function fixed(size: number, notFinite: string, read: string): string[] {
    return [
      `if (p + ${size} > ${limit}) ${fail(Reason.Truncated)}`,
      ...(notFinite === '' ? [] : [`if (${notFinite}) ${fail(Reason.NotFinite)}`]),
      ...range(rules, read, fail),
      `p += ${size};`,
    ];
  }
}

function enumeration(field: FieldNode, fail: Fail, setOf: (numbers: number[]) => string): string[] {
  const numbers = (field.enum?.values ?? []).map((value) => value.number).sort((a, b) => a - b);
  const dense = numbers.every((number, i) => number === i);
  const unknown = dense ? `x < 0 || x >= ${numbers.length}` : `!${setOf(numbers)}.has(x)`;
  return [
    ...(field.rules.required ? [`if (x === 0) ${fail(Reason.Required)}`] : []),
    `if (${unknown}) ${fail(Reason.Enum, 'x')}`,
  ];
}

function range(rules: Rules, x: string, fail: Fail): string[] {
  const { min, max } = rules;
  if (min === undefined && max === undefined) return [];
  const tests = [...(min === undefined ? [] : [`x < ${min}`]), ...(max === undefined ? [] : [`x > ${max}`])];
  return [...(x === 'x' ? [] : [`x = ${x};`]), `if (${tests.join(' || ')}) ${fail(Reason.Range, 'x')}`];
}

const zigzag: ReadonlySet<string> = new Set(['sint32', 'sint64']);
const low = '(parts[0] >>> 0)';

/**
 * From the parts of a varint of two bytes or more to x. 64-bit values lose precision above 2^53, which no bound can
 * reach (rules.ts), so comparing is still right. ClickHouse fails the INSERT on a value that its field cannot hold, where
 * protobuf-es cuts bits off: hence the widths.
 */
const wide: Readonly<
  Record<'bool' | 'enum' | 'int32' | 'uint32' | 'sint32' | 'int64' | 'uint64' | 'sint64', string[]>
> = {
  bool: ['if (parts[1] !== 0) FAIL', `x = ${low};`],
  // A negative one is sign-extended to 10 bytes by every encoder; as 5 bytes ClickHouse takes it for 2^32 - n.
  enum: ['if (parts[1] !== parts[0] >> 31) FAIL', 'x = parts[0];'],
  int32: ['if (parts[1] !== parts[0] >> 31) FAIL', 'x = parts[0];'],
  uint32: ['if (parts[1] !== 0) FAIL', `x = ${low};`],
  sint32: ['if (parts[1] !== 0) FAIL', 'x = (parts[0] >>> 1) ^ -(parts[0] & 1);'],
  int64: [`x = parts[1] * 4294967296 + ${low};`],
  uint64: [`x = (parts[1] >>> 0) * 4294967296 + ${low};`],
  sint64: [
    'x = (parts[1] >>> 1) * 4294967296 + (((parts[0] >>> 1) | (parts[1] << 31)) >>> 0);',
    'if ((parts[0] & 1) !== 0) x = -x - 1;',
  ],
};
