/**
 * Protobuf's wire primitives, written straight into a batch's buffer.
 *
 * Nothing here checks for room: stores past the end of a typed array are ignored, `pos` moves on all the same, and the
 * owner compares it with the buffer's length once per event and encodes again into a larger one. That, and no object per
 * field, is what makes encoding cheap.
 */
export class WireWriter {
  buf: Buffer;
  pos = 0;
  private view: DataView;

  constructor(size: number) {
    // Memory of its own: a piece of Node's pool keeps up to 64 KiB alive.
    this.buf = Buffer.allocUnsafeSlow(size);
    this.view = new DataView(this.buf.buffer, this.buf.byteOffset, this.buf.length);
  }

  /** Replaces the buffer by one of `size` bytes that begins with the first `keep` bytes. */
  resize(size: number, keep: number): void {
    const larger = Buffer.allocUnsafeSlow(size);
    this.buf.copy(larger, 0, 0, keep);
    this.buf = larger;
    this.view = new DataView(larger.buffer, larger.byteOffset, larger.length);
  }

  get overflowed(): boolean {
    return this.pos > this.buf.length;
  }

  /** A whole number in [0, 2^53]. */
  varint(value: number): void {
    const buf = this.buf;
    let rest = value;
    while (rest > 0x7fffffff) {
      buf[this.pos++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    while (rest > 127) {
      buf[this.pos++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    buf[this.pos++] = rest;
  }

  /** Any 64-bit value, as its unsigned bits. */
  varint64(bits: bigint): void {
    let rest = BigInt.asUintN(64, bits);
    while (rest > 127n) {
      this.buf[this.pos++] = Number(rest & 127n) | 128;
      rest >>= 7n;
    }
    this.buf[this.pos++] = Number(rest);
  }

  fixed32(value: number): void {
    if (this.pos + 4 <= this.buf.length) this.view.setUint32(this.pos, value >>> 0, true);
    this.pos += 4;
  }

  fixed64(bits: bigint): void {
    if (this.pos + 8 <= this.buf.length) this.view.setBigUint64(this.pos, BigInt.asUintN(64, bits), true);
    this.pos += 8;
  }

  float(value: number): void {
    if (this.pos + 4 <= this.buf.length) this.view.setFloat32(this.pos, value, true);
    this.pos += 4;
  }

  double(value: number): void {
    if (this.pos + 8 <= this.buf.length) this.view.setFloat64(this.pos, value, true);
    this.pos += 8;
  }

  bytes(value: Uint8Array): void {
    this.varint(value.length);
    if (this.pos + value.length <= this.buf.length) this.buf.set(value, this.pos);
    this.pos += value.length;
  }

  /**
   * Length and UTF-8. Short ASCII, the most of all text, is written here: a call into C++ costs more than the loop.
   * @throws TypeError when the text has half a surrogate pair
   */
  string(text: string): void {
    const length = text.length;
    let mayBeBroken = true;
    if (length < 48) {
      const { buf } = this;
      let at = this.pos + 1;
      let i = 0;
      for (; i < length; i++) {
        const code = text.charCodeAt(i);
        if (code > 127) break;
        buf[at++] = code;
      }
      if (i === length) {
        buf[this.pos] = length;
        this.pos = at;
        return;
      }
      while (i < length && (text.charCodeAt(i) & 0xf800) !== 0xd800) i++;
      mayBeBroken = i < length;
    }
    // UTF-8 has no way to write one; Buffer would put U+FFFD in its place.
    if (mayBeBroken && !isWellFormed(text)) throw new TypeError('expected well-formed text, got a lone surrogate');
    const bytes = Buffer.byteLength(text);
    this.varint(bytes);
    if (this.pos + bytes <= this.buf.length) this.buf.write(text, this.pos, bytes, 'utf8');
    this.pos += bytes;
  }

  /** Opens a length-delimited part of which the length is not known yet. Returns where it began, for `close`. */
  open(): number {
    return ++this.pos;
  }

  /** One byte was kept for the length; a longer one moves the part. */
  close(start: number): void {
    const length = this.pos - start;
    if (length < 128) {
      this.buf[start - 1] = length;
      return;
    }
    const extra = length < 16_384 ? 1 : length < 2_097_152 ? 2 : length < 268_435_456 ? 3 : 4;
    if (this.pos + extra <= this.buf.length) this.buf.copyWithin(start + extra, start, this.pos);
    this.pos = start - 1;
    this.varint(length);
    this.pos = start + extra + length;
  }
}

/** No half of a surrogate pair stands alone. Every Node from 20 on has it, which the ES2023 types do not say. */
function isWellFormed(text: string): boolean {
  return (text as string & { isWellFormed(): boolean }).isWellFormed();
}
