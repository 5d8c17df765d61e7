/**
 * The little of WebAssembly's binary format that the fast scan needs: instructions as byte lists, blocks with labels, and
 * a module of a few functions over one memory. No knowledge of the contract.
 */

/** One instruction, or several: bytes of the binary format. */
export type Op = readonly number[];

const unsigned = (value: number): number[] => {
  const out: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) out.push((rest % 128) | 0x80);
  out.push(rest);
  return out;
};

const signed = (value: bigint): number[] => {
  const out: number[] = [];
  let rest = value;
  for (;;) {
    const byte = Number(rest & 0x7fn);
    rest >>= 7n;
    // Done when what is left is the sign of the last byte.
    if ((rest === 0n && byte < 0x40) || (rest === -1n && byte >= 0x40)) return [...out, byte];
    out.push(byte | 0x80);
  }
};

const f64Bytes = (value: number): number[] => [...new Uint8Array(new Float64Array([value]).buffer)];
const memory = (code: number, offset: number): Op => [code, 0, ...unsigned(offset)];
const simd = (code: number): Op => [0xfd, ...unsigned(code)];

export const get = (local: number): Op => [0x20, ...unsigned(local)];
export const set = (local: number): Op => [0x21, ...unsigned(local)];
export const tee = (local: number): Op => [0x22, ...unsigned(local)];
export const call = (index: number): Op => [0x10, ...unsigned(index)];
export const leave: Op = [0x0f];

export const i32 = {
  const: (value: number): Op => [0x41, ...signed(BigInt(value | 0))],
  load: (offset = 0) => memory(0x28, offset),
  load8: (offset = 0) => memory(0x2d, offset),
  load16: (offset = 0) => memory(0x2f, offset),
  store: (offset = 0) => memory(0x36, offset),
  eqz: [0x45],
  eq: [0x46],
  ne: [0x47],
  ltU: [0x49],
  gtU: [0x4b],
  geU: [0x4f],
  add: [0x6a],
  sub: [0x6b],
  mul: [0x6c],
  and: [0x71],
  or: [0x72],
  shl: [0x74],
  shrU: [0x76],
} as const;

export const i64 = {
  const: (value: bigint): Op => [0x42, ...signed(BigInt.asIntN(64, value))],
  load: (offset = 0) => memory(0x29, offset),
  eqz: [0x50],
  ne: [0x52],
  ltS: [0x53],
  gtS: [0x55],
  gtU: [0x56],
  ctz: [0x7a],
  sub: [0x7d],
  and: [0x83],
  or: [0x84],
  xor: [0x85],
  shrU: [0x88],
  wrap: [0xa7],
} as const;

export const f64 = {
  const: (value: number): Op => [0x44, ...f64Bytes(value)],
  load: (offset = 0) => memory(0x2b, offset),
  /** Of a float32 in memory. */
  loadFloat: (offset = 0): Op => [...memory(0x2a, offset), 0xbb],
  lt: [0x63],
  gt: [0x64],
} as const;

/** 16 bytes at once. */
export const v128 = {
  const: (bytes: readonly number[]): Op => [...simd(12), ...bytes],
  splat: (byte: number): Op => [...simd(12), ...Array.from({ length: 16 }, () => byte)],
  load: (offset = 0): Op => [0xfd, 0, 0, ...unsigned(offset)],
  store: (offset = 0): Op => [0xfd, 11, 0, ...unsigned(offset)],
  and: simd(78),
  or: simd(80),
  xor: simd(81),
  /** 1 when any bit is set. */
  any: simd(83),
  /** Byte i of the first at the places that the second names; 0 for places above 15. */
  swizzle: simd(14),
  eqBytes: simd(35),
  geBytesU: simd(44),
  subBytes: simd(113),
  shrBytesU: simd(109),
  /** The top bit of each byte. */
  topBits: simd(100),
} as const;

export const valueType = { i32: 0x7f, i64: 0x7e, v128: 0x7b } as const;
export type ValueType = keyof typeof valueType;

/** A place that a branch can go to: behind its block, or to the top of its loop. */
export type Label = number;

export interface Code {
  emit(...ops: readonly Op[]): void;
  block(body: (label: Label) => void): void;
  loop(body: (label: Label) => void): void;
  /** Takes the condition from the stack. */
  when(body: () => void, otherwise?: () => void): void;
  goto(label: Label): void;
  /** Takes the condition from the stack. */
  gotoIf(label: Label): void;
  /** A new local variable, 0 at the start. */
  local(type: ValueType): number;
  /** The function as the code section holds it. */
  bytes(): number[];
}

/** The body of a function whose parameters are `params` i32 values. */
export function createCode(params: number): Code {
  const out: number[] = [];
  const locals: ValueType[] = [];
  let depth = 0;
  const nested = (open: number, body: (label: Label) => void): void => {
    // The type of a block that leaves nothing on the stack.
    out.push(open, 0x40);
    body(++depth);
    depth--;
  };
  return {
    emit(...ops) {
      for (const op of ops) out.push(...op);
    },
    block(body) {
      nested(0x02, body);
      out.push(0x0b);
    },
    loop(body) {
      nested(0x03, body);
      out.push(0x0b);
    },
    when(body, otherwise) {
      nested(0x04, body);
      if (otherwise !== undefined) {
        out.push(0x05);
        depth++;
        otherwise();
        depth--;
      }
      out.push(0x0b);
    },
    goto(label) {
      out.push(0x0c, ...unsigned(depth - label));
    },
    gotoIf(label) {
      out.push(0x0d, ...unsigned(depth - label));
    },
    local(type) {
      return params + locals.push(type) - 1;
    },
    bytes() {
      const head = [...unsigned(locals.length), ...locals.flatMap((type) => [1, valueType[type]])];
      return [...unsigned(head.length + out.length + 1), ...head, ...out, 0x0b];
    },
  };
}

/**
 * A module with one memory, exported as "memory", and functions from three i32 to one i32; the last one is exported as
 * "run".
 */
export function wasmModule(functions: readonly Code[], pages: number): Uint8Array<ArrayBuffer> {
  const section = (id: number, content: number[]): number[] => [id, ...unsigned(content.length), ...content];
  const text = (value: string): number[] => [value.length, ...Buffer.from(value)];
  const list = (items: readonly (readonly number[])[]): number[] => [...unsigned(items.length), ...items.flat()];
  const { i32: number } = valueType;
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, list([[0x60, 3, number, number, number, 1, number]])),
    ...section(3, list(functions.map(() => [0]))),
    ...section(5, list([[0, ...unsigned(pages)]])),
    ...section(
      7,
      list([
        [...text('memory'), 2, 0],
        [...text('run'), 0, functions.length - 1],
      ]),
    ),
    ...section(10, list(functions.map((code) => code.bytes()))),
  ]);
}
