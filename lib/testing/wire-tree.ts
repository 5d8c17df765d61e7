/**
 * Encoded messages as trees of fields, to build encodings that no encoder writes: fields shuffled, doubled, padded, cut,
 * with a wrong wire type. Slow and plain on purpose, and made from the descriptors, not from lib/contract's rules: it is
 * half of the oracle that the scanner is held to.
 */
import type { DescField, DescMessage } from '@bufbuild/protobuf';

export interface WireField {
  number: number;
  wireType: number;
  /** Varint: a number of 64 bits; fixed or length-delimited: bytes; a known message or map entry: its fields. */
  value: bigint | Uint8Array | WireField[];
  /** Undefined for unknown fields and for the key and value of a map entry. */
  desc?: DescField | undefined;
  /** Bytes more than needed for the varint. */
  pad?: number;
  /** Bytes more than needed for the length. */
  sizePad?: number;
  /** Added to the length that is written: a lie. */
  sizeLie?: number;
  /** Bytes more than needed for the tag. */
  tagPad?: number;
}

function pushVarint(out: number[], value: bigint, pad = 0): void {
  let rest = value;
  while (rest >= 0x80n) {
    out.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  if (pad === 0) {
    out.push(Number(rest));
    return;
  }
  out.push(Number(rest) | 0x80);
  for (let i = 1; i < pad; i++) out.push(0x80);
  out.push(0);
}

function pushField(chunks: Uint8Array[], field: WireField): void {
  const head: number[] = [];
  pushVarint(head, (BigInt(field.number) << 3n) | BigInt(field.wireType), field.tagPad);
  if (typeof field.value === 'bigint') {
    pushVarint(head, field.value, field.pad);
    chunks.push(Uint8Array.from(head));
    return;
  }
  const content = Array.isArray(field.value) ? encodeTree(field.value) : field.value;
  if (field.wireType === 2) {
    pushVarint(head, BigInt(Math.max(0, content.length + (field.sizeLie ?? 0))), field.sizePad);
  }
  chunks.push(Uint8Array.from(head), content);
}

export function encodeTree(fields: readonly WireField[]): Uint8Array {
  const chunks: Uint8Array[] = [];
  for (const field of fields) pushField(chunks, field);
  let size = 0;
  for (const chunk of chunks) size += chunk.length;
  const out = new Uint8Array(size);
  let p = 0;
  for (const chunk of chunks) {
    out.set(chunk, p);
    p += chunk.length;
  }
  return out;
}

class Cursor {
  p = 0;
  constructor(readonly bytes: Uint8Array) {}

  varint(): { value: bigint; size: number } {
    let value = 0n;
    for (let i = 0; i < 10; i++) {
      const byte = this.bytes[this.p++];
      if (byte === undefined) throw new Error('varint cut short');
      // ClickHouse takes 1 only as the tenth byte.
      if (i === 9 && byte !== 1) throw new Error('varint above 64 bits');
      value |= BigInt(byte & 0x7f) << BigInt(7 * i);
      if (byte < 0x80) return { value, size: i + 1 };
    }
    throw new Error('varint too long');
  }

  take(size: number): Uint8Array {
    if (size > this.bytes.length - this.p) throw new Error('runs past the end');
    this.p += size;
    return this.bytes.subarray(this.p - size, this.p);
  }
}

/** The tree of a message of type `desc`, or of a map entry. @throws Error when it is not Protobuf of the strict kind. */
export function parseTree(bytes: Uint8Array, desc: DescMessage | 'entry', entryMessage?: DescMessage): WireField[] {
  const cursor = new Cursor(bytes);
  const fields: WireField[] = [];
  while (cursor.p < bytes.length) {
    const field: WireField = { ...takeTag(cursor), value: 0n };
    if (desc !== 'entry') field.desc = desc.fields.find((known) => known.number === field.number);
    switch (field.wireType) {
      case 0:
        field.value = cursor.varint().value;
        break;
      case 1:
        field.value = cursor.take(8);
        break;
      case 5:
        field.value = cursor.take(4);
        break;
      case 2: {
        const inner = desc === 'entry' && field.number === 2 ? entryMessage : messageIn(field.desc);
        field.value = parseDelimited(takeDelimited(cursor), field.desc, inner);
        break;
      }
      default:
        throw new Error('group');
    }
    fields.push(field);
  }
  return fields;
}

function takeTag(cursor: Cursor): { number: number; wireType: number } {
  const tag = cursor.varint();
  const canonical: number[] = [];
  pushVarint(canonical, tag.value);
  if (tag.size !== canonical.length || tag.value > 0xffff_ffffn) throw new Error('bad tag');
  const number = Number(tag.value >> 3n);
  if (number === 0) throw new Error('field number 0');
  return { number, wireType: Number(tag.value & 7n) };
}

function takeDelimited(cursor: Cursor): Uint8Array {
  const size = cursor.varint();
  if (size.size > 5) throw new Error('length too long');
  return cursor.take(Number(size.value));
}

function parseDelimited(
  bytes: Uint8Array,
  desc: DescField | undefined,
  inner: DescMessage | undefined,
): Uint8Array | WireField[] {
  if (desc?.fieldKind === 'map') return parseTree(bytes, 'entry', desc.message);
  return inner === undefined ? bytes : parseTree(bytes, inner);
}

function messageIn(desc: DescField | undefined): DescMessage | undefined {
  if (desc?.fieldKind === 'message') return desc.message;
  return desc?.fieldKind === 'list' ? desc.message : undefined;
}
