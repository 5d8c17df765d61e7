/**
 * The fast scan: a WebAssembly function, made from the rules tree at start, that passes over events which are surely
 * valid. It looks at 16 bytes of text a step, which JavaScript cannot.
 *
 * It only ever says "surely valid, and nothing unknown in it". Everything else it leaves to the compiled scanner of
 * compile.ts, which decides exactly and explains: fields out of order or unknown, any fault, lengths of three bytes,
 * varints of nine and more, kinds of field that today's contract does not have. So what is accepted stays defined in one
 * place, and what encoders write in practice (fields ascending, each once, lengths as short as possible) is fast.
 *
 *   SCAN-1  An event is passed over only if the compiled scanner would answer 0 for it. Fields are taken in strictly
 *       ascending order, so none can come twice, and a required one cannot be missed.
 *   SCAN-2  Bounds are checked where a message ends, not at each field: the position only grows, so whatever ran past the end
 *       of its message is found there. Reads in between stay in the memory, which has room behind the batch.
 *
 * Costs a third to a quarter of the compiled scanner (`npm run bench -- parse`).
 */
import type { Charset } from '#gen/sluice/rules/v1/rules_pb.js';
import { Charset as Charsets } from '#gen/sluice/rules/v1/rules_pb.js';
import { MiB } from '../units.js';
import type { FieldNode, MessageNode } from './rules.js';
import {
  type Code,
  call,
  createCode,
  f64,
  get,
  i32,
  i64,
  type Label,
  leave,
  set,
  tee,
  v128,
  wasmModule,
} from './wasm.js';

export interface FastScan {
  /** Takes a batch: a copy, so that it lies in the scan's own memory. False: too large for it. */
  load(batch: Uint8Array): boolean;
  /**
   * Passes over events of the loaded batch from byte `from` on, at most `max`. Returns where it stopped: the end, or the
   * tag of an event that somebody else has to look at.
   */
  run(from: number, max: number): number;
  /** How many events the last run passed over. */
  readonly passed: number;
}

// The memory: where the answer, the masks and the keys of a map lie, and the batch.
const passedAt = 0;
/** 16 bytes of ones, 16 of zeros: 16 bytes from here + 16 - n on are a mask of n bytes. */
const masksAt = 64;
const keysAt = 1024;
/** Of a key: its first and last 16 bytes (the same when it has no more), and its length. */
const keyBytes = 36;
const maxKeys = 1024;
const pageBytes = 65_536;
const batchAt = pageBytes;
/** SCAN-2: each level of messages, a map's key, and its value may reach beyond the batch by a length of two bytes. */
const roomBytes = 2 * pageBytes;
const maxBatchBytes = 16 * MiB;
/** A message within messages deeper than this is left to the compiled scanner. */
const maxDepth = 3;

/** As much of it as is used; TypeScript has it only among the types of browsers. */
declare const WebAssembly:
  | {
      validate(bytes: Uint8Array): boolean;
      readonly Module: new (bytes: Uint8Array) => object;
      readonly Instance: new (module: object) => { readonly exports: Readonly<Record<string, unknown>> };
    }
  | undefined;

interface WasmMemory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

/** Undefined where WebAssembly, or its 128-bit part, is missing: everything works without, more slowly. */
export function createFastScan(event: MessageNode): FastScan | undefined {
  if (typeof WebAssembly === 'undefined') return undefined;
  const bytes = wasmModule([utf8Code(), scanCode(event)], (batchAt + roomBytes) / pageBytes);
  if (!WebAssembly.validate(bytes)) return undefined;
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes));
  const memory = exports.memory as WasmMemory;
  const run = exports.run as (from: number, end: number, max: number) => number;
  new Uint8Array(memory.buffer).fill(0xff, masksAt, masksAt + 16);
  let all = new Uint8Array(memory.buffer);
  let passed = new Int32Array(memory.buffer, passedAt, 1);
  let end = batchAt;
  return {
    load(batch) {
      if (batch.length > maxBatchBytes) return false;
      const missing = batchAt + batch.length + roomBytes - all.length;
      if (missing > 0) {
        memory.grow(Math.ceil(missing / pageBytes));
        all = new Uint8Array(memory.buffer);
        passed = new Int32Array(memory.buffer, passedAt, 1);
      }
      all.set(batch, batchAt);
      end = batchAt + batch.length;
      return true;
    },
    run(from, max) {
      return run(batchAt + from, end, max) - batchAt;
    },
    get passed() {
      return passed[0] as number;
    },
  };
}

/** utf8(p, q, control): 1 when bytes p … q-1 are strict UTF-8 (RFC 3629), without control characters if `control` is 1. */
function utf8Code(): Code {
  const code = createCode(3);
  const [p, q, control] = [0, 1, 2];
  const lead = code.local('i32');
  const second = code.local('i32');
  const emit = code.emit;
  const refuseIf = (): void => code.when(() => emit(i32.const(0), leave));
  const next = (size: number, again: Label): void => {
    emit(get(p), i32.const(size), i32.add, set(p));
    code.goto(again);
  };
  code.block((done) => {
    code.loop((again) => {
      emit(get(p), get(q), i32.geU);
      code.gotoIf(done);
      emit(get(p), i32.load8(), tee(lead), i32.const(0x80), i32.ltU);
      code.when(() => {
        // Control: below 0x20, or 0x7f.
        emit(get(control), get(lead), i32.const(0x20), i32.ltU, get(lead), i32.const(0x7f), i32.eq, i32.or, i32.and);
        refuseIf();
        next(1, again);
      });
      // C0 and C1 would be over-long; 80 to BF continue nothing; above F4 there is nothing.
      emit(get(lead), i32.const(0xc2), i32.sub, i32.const(0xf4 - 0xc2), i32.gtU);
      refuseIf();
      emit(get(p), i32.load8(1), tee(second), i32.const(0xc0), i32.and, i32.const(0x80), i32.ne);
      refuseIf();
      emit(get(lead), i32.const(0xe0), i32.ltU);
      code.when(() => next(2, again));
      // The first two bytes' bits decide: over-long, a surrogate, or above U+10FFFF.
      emit(get(lead), i32.const(15), i32.and, i32.const(6), i32.shl, get(second), i32.const(63), i32.and, i32.or);
      emit(set(second));
      emit(get(lead), i32.const(0xf0), i32.ltU);
      code.when(() => {
        emit(get(p), i32.load8(2), i32.const(0xc0), i32.and, i32.const(0x80), i32.ne);
        emit(get(second), i32.const(5), i32.shrU, tee(second), i32.eqz, i32.or);
        emit(get(second), i32.const(0xd800 >> 11), i32.eq, i32.or);
        refuseIf();
        next(3, again);
      });
      emit(get(p), i32.load16(2), i32.const(0xc0c0), i32.and, i32.const(0x8080), i32.ne);
      emit(get(second), i32.const(0x10), i32.sub, i32.const(0x100), i32.geU, i32.or);
      refuseIf();
      next(4, again);
    });
  });
  // A character that is cut short ends behind q.
  emit(get(p), get(q), i32.eq);
  return code;
}

const utf8 = 0;

/** Bytes of a token, by the two halves of a byte: allowed where the low half's and the high half's entries share a bit. */
const tokenHalves = ((): { low: number[]; high: number[] } => {
  const low = Array.from({ length: 16 }, () => 0);
  const high = Array.from({ length: 16 }, () => 0);
  const rows = new Map<string, number>();
  for (let half = 0; half < 8; half++) {
    const columns = Array.from({ length: 16 }, (_, i) => /[\w.:/-]/.test(String.fromCharCode(half * 16 + i)));
    if (!columns.includes(true)) continue;
    const key = columns.join();
    const bit = rows.get(key) ?? 1 << rows.size;
    rows.set(key, bit);
    high[half] = bit;
    for (const [i, allowed] of columns.entries()) if (allowed) low[i]! |= bit;
  }
  return { low, high };
})();

/** The locals of the scan, and the code that uses them. */
interface Registers {
  readonly code: Code;
  readonly emit: Code['emit'];
  /** Where it reads. */
  readonly p: number;
  readonly t: number;
  readonly n: number;
  readonly q: number;
  readonly x: number;
  readonly s: number;
  readonly v: number;
  readonly bad: number;
}

/** From 16 bytes on the stack to bytes whose top bit tells that they are refused. */
type Judge = Readonly<Record<Charset, () => void>>;

function judgeCode({ code, emit, v }: Registers): Judge {
  /** A constant, kept in a local: V8 would build it at each use. */
  const kept = (value: readonly number[]): number => {
    const local = code.local('v128');
    emit(value, set(local));
    return local;
  };
  const space = kept(v128.splat(0x20));
  const plain = kept(v128.splat(0x7f - 0x20));
  const upperA = kept(v128.splat(0x41));
  const letters = kept(v128.splat(26));
  const lowHalf = kept(v128.splat(0x0f));
  const zero = kept(v128.splat(0));
  const tokenLow = kept(v128.const(tokenHalves.low));
  const tokenHigh = kept(v128.const(tokenHalves.high));

  return {
    [Charsets.UNSPECIFIED]: () => {},
    [Charsets.NO_CONTROL]: () => emit(get(space), v128.subBytes, get(plain), v128.geBytesU),
    [Charsets.UPPER_ALPHA]: () => emit(get(upperA), v128.subBytes, get(letters), v128.geBytesU),
    [Charsets.TOKEN]: () => {
      emit(set(v));
      emit(get(tokenLow), get(v), get(lowHalf), v128.and, v128.swizzle);
      emit(get(tokenHigh), get(v), i32.const(4), v128.shrBytesU, v128.swizzle);
      emit(v128.and, get(zero), v128.eqBytes);
    },
  };
}

/** Checks of texts. */
function textCode({ code, emit, p, n, q, bad }: Registers, judge: Judge): (charset: Charset, refused: Label) => void {
  /** p and n → the text of n bytes at p is checked, and p is behind it. */
  return (charset, refused) => {
    emit(get(n), i32.const(16), i32.gtU);
    code.when(
      () => {
        // The last step overlaps the one before.
        emit(get(p), get(n), i32.add, i32.const(16), i32.sub, tee(q), v128.load());
        judge[charset]();
        emit(set(bad));
        code.loop((again) => {
          emit(get(p), v128.load());
          judge[charset]();
          emit(get(bad), v128.or, set(bad));
          emit(get(p), i32.const(16), i32.add, tee(p), get(q), i32.ltU);
          code.gotoIf(again);
        });
        emit(get(q), i32.const(16), i32.add, set(q));
      },
      () => {
        emit(get(p), v128.load());
        judge[charset]();
        emit(i32.const(masksAt + 16), get(n), i32.sub, v128.load(), v128.and, set(bad));
        emit(get(p), get(n), i32.add, set(q));
      },
    );
    emit(get(bad), v128.topBits);
    if (charset === Charsets.UNSPECIFIED || charset === Charsets.NO_CONTROL) {
      // Not plain ASCII: looked at by character.
      code.when(() => {
        emit(get(q), get(n), i32.sub, get(q), i32.const(charset === Charsets.NO_CONTROL ? 1 : 0), call(utf8), i32.eqz);
        code.gotoIf(refused);
      });
    } else {
      code.gotoIf(refused);
    }
    emit(get(q), set(p));
  };
}

type Readers = ReturnType<typeof readerCode>;

/** Reads bytes, tags, lengths and varints. */
function readerCode({ code, emit, p, n, x, s }: Registers) {
  /** A byte at p into `local`. */
  const byte = (local: number): void => emit(get(p), i32.load8(), set(local), get(p), i32.const(1), i32.add, set(p));

  /** The second byte, if there is one, of a tag or length whose first is in `local`. The result is at least `min`. */
  const second = (local: number, min: number, refused: Label): void => {
    emit(get(local), i32.const(0x80), i32.geU);
    code.when(() => {
      emit(get(local), i32.const(0x7f), i32.and, get(p), i32.load8(), tee(local), i32.const(7), i32.shl, i32.or);
      emit(get(local), i32.const(0x80), i32.geU);
      code.gotoIf(refused);
      emit(tee(local), i32.const(min), i32.ltU);
      code.gotoIf(refused);
      emit(get(p), i32.const(1), i32.add, set(p));
    });
  };

  /** A length of at most `limit` into n. */
  const length = (limit: number | undefined, refused: Label): void => {
    byte(n);
    if (limit === undefined || limit >= 0x80) second(n, 0, refused);
    if (limit !== undefined && limit < 0x3fff) {
      emit(get(n), i32.const(limit), i32.gtU);
      code.gotoIf(refused);
    }
  };

  /** A varint of at most eight bytes into x: all of its bytes at once. */
  const varint = (refused: Label): void => {
    const tops = 0x8080808080808080n;
    emit(get(p), i64.load(), tee(x), i64.const(-1n), i64.xor, i64.const(tops), i64.and, tee(s), i64.eqz);
    code.gotoIf(refused);
    emit(get(p), get(s), i64.ctz, i64.wrap, i32.const(3), i32.shrU, i32.add, i32.const(1), i32.add, set(p));
    // All bits up to the first top bit that is 0, without the top bits.
    emit(get(x), get(s), get(s), i64.const(1n), i64.sub, i64.xor, i64.and, i64.const(~tops), i64.and, set(x));
    // Groups of 7 bits are joined in pairs, three times.
    for (const [shift, low] of [
      [1n, 0x007f007f007f007fn],
      [2n, 0x00003fff00003fffn],
      [4n, 0x000000000fffffffn],
    ] as const) {
      const high = low << (8n * shift);
      emit(
        get(x),
        i64.const(low),
        i64.and,
        get(x),
        i64.const(high),
        i64.and,
        i64.const(shift),
        i64.shrU,
        i64.or,
        set(x),
      );
    }
  };

  return { byte, second, length, varint };
}

const integers: Readonly<Record<string, { max: bigint | undefined; zigzag: boolean }>> = {
  int32: { max: 0x7fffffffn, zigzag: false },
  uint32: { max: 0xffffffffn, zigzag: false },
  sint32: { max: 0xffffffffn, zigzag: true },
  int64: { max: undefined, zigzag: false },
  uint64: { max: undefined, zigzag: false },
  sint64: { max: undefined, zigzag: true },
};
const fixedBytes: Readonly<Record<string, number>> = { fixed32: 4, sfixed32: 4, fixed64: 8, sfixed64: 8 };

/** Checks of numbers. Each has the value at p, and moves p behind it. */
function numberCode({ code, emit, p, n, x }: Registers, { byte, varint }: Readers) {
  const bool = (refused: Label): void => {
    byte(n);
    emit(get(n), i32.const(1), i32.gtU);
    code.gotoIf(refused);
  };

  const enumeration = ({ rules, ...field }: FieldNode, refused: Label): void => {
    byte(n);
    const numbers = new Set(field.enum?.values.map(({ number }) => number));
    let dense = 0;
    while (dense < 0x80 && numbers.has(dense)) dense++;
    const min = rules.required ? 1 : 0;
    emit(get(n), i32.const(min), i32.sub, i32.const(Math.max(0, dense - min)), i32.geU);
    code.gotoIf(refused);
  };

  const floating = ({ kind, rules }: FieldNode, refused: Label): void => {
    const size = kind === 'double' ? 8 : 4;
    const exponent = kind === 'double' ? 0x7ff0 : 0x7f80;
    emit(get(p), i32.load16(size - 2), i32.const(exponent), i32.and, i32.const(exponent), i32.eq);
    code.gotoIf(refused);
    const read = kind === 'double' ? f64.load() : f64.loadFloat();
    if (rules.min !== undefined) {
      emit(get(p), read, f64.const(rules.min), f64.lt);
      code.gotoIf(refused);
    }
    if (rules.max !== undefined) {
      emit(get(p), read, f64.const(rules.max), f64.gt);
      code.gotoIf(refused);
    }
    emit(get(p), i32.const(size), i32.add, set(p));
  };

  const whole = ({ kind, rules }: FieldNode, refused: Label): void => {
    const { max: widest, zigzag } = integers[kind] as { max: bigint | undefined; zigzag: boolean };
    varint(refused);
    if (widest !== undefined) {
      emit(get(x), i64.const(widest), i64.gtU);
      code.gotoIf(refused);
    }
    if (zigzag) {
      emit(get(x), i64.const(1n), i64.shrU, i64.const(0n), get(x), i64.const(1n), i64.and, i64.sub, i64.xor, set(x));
    }
    // A whole x is below 0.5 exactly when it is below 1.
    if (rules.min !== undefined) {
      emit(get(x), i64.const(BigInt(Math.ceil(rules.min))), i64.ltS);
      code.gotoIf(refused);
    }
    if (rules.max !== undefined) {
      emit(get(x), i64.const(BigInt(Math.floor(rules.max))), i64.gtS);
      code.gotoIf(refused);
    }
  };

  const fixed = (size: number): void => emit(get(p), i32.const(size), i32.add, set(p));

  return { bool, enumeration, floating, whole, fixed };
}

type MessageCode = (node: MessageNode, limit: number, depth: number, refused: Label) => void;
type ValueCode = (field: FieldNode, maxBytes: number | undefined, depth: number, refused: Label) => void;

/** Checks the value of a field at p, and moves p behind it. */
function valueCode(
  registers: Registers,
  readers: Readers,
  text: (charset: Charset, refused: Label) => void,
  message: MessageCode,
): ValueCode {
  const { code, emit, p, n } = registers;
  const { length } = readers;
  const numbers = numberCode(registers, readers);

  const bytes = ({ kind, rules }: FieldNode, maxBytes: number | undefined, refused: Label): void => {
    length(maxBytes, refused);
    if (rules.required) {
      emit(get(n), i32.eqz);
      code.gotoIf(refused);
    }
    if (rules.minBytes !== undefined) {
      // Short, but not empty.
      emit(get(n), i32.const(1), i32.sub, i32.const(rules.minBytes - 1), i32.ltU);
      code.gotoIf(refused);
    }
    if (kind === 'string') text(rules.charset, refused);
    else emit(get(p), get(n), i32.add, set(p));
  };

  return (field, maxBytes, depth, refused) => {
    switch (field.kind) {
      case 'string':
      case 'bytes':
        return bytes(field, maxBytes, refused);
      case 'message': {
        length(undefined, refused);
        const inner = code.local('i32');
        emit(get(p), get(n), i32.add, set(inner));
        return message(field.message as MessageNode, inner, depth + 1, refused);
      }
      case 'bool':
        return numbers.bool(refused);
      case 'enum':
        return numbers.enumeration(field, refused);
      case 'double':
      case 'float':
        return numbers.floating(field, refused);
      default: {
        const size = fixedBytes[field.kind];
        if (size !== undefined) numbers.fixed(size);
        else numbers.whole(field, refused);
      }
    }
  };
}

type EntryCode = (field: FieldNode, count: number, depth: number, refused: Label) => void;

function entryCode(
  { code, emit, p, n }: Registers,
  { byte, length }: Readers,
  text: (charset: Charset, refused: Label) => void,
  value: ValueCode,
): EntryCode {
  /** The entry of a map at p: a key and a value, in this order. `count` holds how many came before. */
  return (field, count, depth, refused) => {
    const entryEnd = code.local('i32');
    const key = code.local('i32');
    const slot = code.local('i32');
    const first = code.local('v128');
    const last = code.local('v128');
    emit(get(count), i32.const(Math.min(field.rules.maxItems ?? 0, maxKeys)), i32.geU);
    code.gotoIf(refused);
    length(undefined, refused);
    emit(get(p), get(n), i32.add, set(entryEnd));
    byte(n);
    emit(get(n), i32.const(0x0a), i32.ne);
    code.gotoIf(refused);
    length(field.rules.maxKeyBytes, refused);
    emit(get(n), i32.eqz);
    code.gotoIf(refused);
    emit(get(p), set(key), get(n), i32.const(16), i32.gtU);
    code.when(
      () => {
        emit(get(key), v128.load(), set(first));
        emit(get(key), get(n), i32.add, i32.const(16), i32.sub, v128.load(), set(last));
      },
      () => {
        emit(get(key), v128.load(), i32.const(masksAt + 16), get(n), i32.sub, v128.load(), v128.and);
        emit(tee(first), set(last));
      },
    );
    // Is there an earlier key of this length that begins and ends alike? It may be the same one.
    emit(i32.const(keysAt), set(slot));
    code.block((free) => {
      code.loop((again) => {
        emit(get(slot), get(count), i32.const(keyBytes), i32.mul, i32.const(keysAt), i32.add, i32.geU);
        code.gotoIf(free);
        emit(get(slot), i32.load(32), get(n), i32.eq);
        code.when(() => {
          emit(get(slot), v128.load(), get(first), v128.xor, get(slot), v128.load(16), get(last), v128.xor, v128.or);
          emit(v128.any, i32.eqz);
          code.gotoIf(refused);
        });
        emit(get(slot), i32.const(keyBytes), i32.add, set(slot));
        code.goto(again);
      });
    });
    emit(get(slot), get(first), v128.store(), get(slot), get(last), v128.store(16), get(slot), get(n), i32.store(32));
    emit(get(count), i32.const(1), i32.add, set(count));
    text(Charsets.UNSPECIFIED, refused);
    byte(n);
    emit(get(n), i32.const(16 + field.wireType), i32.ne);
    code.gotoIf(refused);
    value(field, field.rules.maxValueBytes, depth, refused);
    emit(get(p), get(entryEnd), i32.ne);
    code.gotoIf(refused);
  };
}

/** Checks messages, field by field in ascending order. */
function messageCode(
  { code, emit, p, t }: Registers,
  { byte, second }: Readers,
  mapEntry: EntryCode,
  value: ValueCode,
): MessageCode {
  /** A field whose tag may be in t. @param tag reads the next tag */
  const fieldCode = (field: FieldNode, depth: number, refused: Label, tag: () => void): void => {
    const expected = field.number * 8 + (field.cardinality === 'map' ? 2 : field.wireType);
    const skipUnlessExpected = (label: Label): void => {
      emit(get(t), i32.const(expected), i32.ne);
      code.gotoIf(label);
    };
    const one = (label: Label): void => {
      skipUnlessExpected(label);
      value(field, field.rules.maxBytes, depth, refused);
      tag();
    };
    if (field.cardinality === 'map') {
      const count = code.local('i32');
      emit(i32.const(0), set(count));
      code.block((skip) => {
        code.loop((again) => {
          skipUnlessExpected(skip);
          mapEntry(field, count, depth, refused);
          tag();
          code.goto(again);
        });
      });
    } else if (field.rules.required) one(refused);
    else code.block(one);
  };

  /** The fields of `node` from p to `limit`. Whatever is not as expected goes to `refused`. */
  return (node, limit, depth, refused) => {
    const fields = node.fields
      .filter((field) => supported(field, depth) || field.rules.required)
      .sort((a, b) => a.number - b.number);
    const long = fields.some(({ number }) => number >= 16);
    let required = fields.filter((field) => field.rules.required).length;
    code.block((done) => {
      const tag = (): void => {
        emit(get(p), get(limit), i32.geU);
        code.gotoIf(required > 0 ? refused : done);
        byte(t);
        // A tag is never padded.
        if (long) second(t, 0x80, refused);
      };
      tag();
      for (const field of fields) {
        // A required field that only the compiled scanner knows.
        if (!supported(field, depth)) break;
        if (field.rules.required) required--;
        fieldCode(field, depth, refused, tag);
      }
      // A tag that is left over.
      code.goto(refused);
    });
    emit(get(p), get(limit), i32.ne);
    code.gotoIf(refused);
  };
}

/** run(p, end, most): see FastScan. */
function scanCode(event: MessageNode): Code {
  const code = createCode(3);
  const [p, end, max] = [0, 1, 2];
  const { emit } = code;
  const at = code.local('i32');
  const passed = code.local('i32');
  /** Where the event ends. */
  const stop = code.local('i32');
  const [t, n, q] = [code.local('i32'), code.local('i32'), code.local('i32')];
  const [x, s] = [code.local('i64'), code.local('i64')];
  const [v, bad] = [code.local('v128'), code.local('v128')];
  const registers: Registers = { code, emit, p, t, n, q, x, s, v, bad };
  const readers = readerCode(registers);
  const text = textCode(registers, judgeCode(registers));
  const value = valueCode(registers, readers, text, (...of) => message(...of));
  const message = messageCode(registers, readers, entryCode(registers, readers, text, value), value);
  const { byte, length } = readers;

  code.block((out) => {
    code.loop((next) => {
      emit(get(p), tee(at), get(end), i32.geU);
      code.gotoIf(out);
      code.block((refused) => {
        emit(get(passed), get(max), i32.geU);
        code.gotoIf(refused);
        byte(n);
        emit(get(n), i32.const(0x0a), i32.ne);
        code.gotoIf(refused);
        length(undefined, refused);
        emit(get(p), get(n), i32.add, tee(stop), get(end), i32.gtU);
        code.gotoIf(refused);
        message(event, stop, 0, refused);
        emit(get(passed), i32.const(1), i32.add, set(passed));
        code.goto(next);
      });
    });
  });
  emit(i32.const(0), get(passed), i32.store(passedAt), get(at));
  return code;
}

/** Whether the fast scan checks such a field; one that it does not know it leaves to the compiled scanner. */
function supported(field: FieldNode, depth: number): boolean {
  const { cardinality, kind, rules, number, wireType } = field;
  if (cardinality === 'repeated') return false;
  // Tags of two bytes at most.
  if (number * 8 + wireType >= 2 ** 14) return false;
  if (kind === 'message') return cardinality === 'singular' && depth < maxDepth;
  if (cardinality === 'map' && (kind === 'bytes' || rules.maxItems === undefined)) return false;
  const fixed = kind === 'fixed32' || kind === 'sfixed32' || kind === 'fixed64' || kind === 'sfixed64';
  return !fixed || (rules.min === undefined && rules.max === undefined);
}
