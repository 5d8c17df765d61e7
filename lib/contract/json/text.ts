/**
 * A strict, one-pass reader of JSON (RFC 8259) over UTF-8 bytes. It makes no objects: the caller takes each value where it stands.
 *
 * Why not JSON.parse, or a library: all of them build the whole value before anything can be counted, lose digits or keys that come
 * twice, or end at the first bad item. Here events are counted and bounded while they are read, numbers keep their digits, and a bad
 * event is skipped. text.test.ts holds it to JSON.parse.
 *
 * A byte order mark at the start is skipped, as RFC 8259 allows. Bytes that are no UTF-8 are passed on inside strings: the scan
 * refuses them with the field's name, as in Protobuf.
 */
import { isUtf8 } from 'node:buffer';
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { SluiceError } from '../../errors.js';
import { KiB } from '../../units.js';
import { FieldFault, shown } from './fault.js';
import { hashOf, type NameTable } from './names.js';
import { maxNames, SeenNames } from './seen-names.js';

/** Deeper values are refused: as deep as Protobuf's own decoders go. */
const maxDepth = 100;

const quote = 0x22;
const backslash = 0x5c;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const closeBracket = 0x5d;
const comma = 0x2c;
const colon = 0x3a;

/** Which of the containers around a value are objects, for `skip`: one byte a level, used again. */
let levels = new Uint8Array(256);
const keptLevels = 64 * KiB;

export class JsonText {
  /** The next byte to read. */
  p = 0;
  readonly end: number;
  /** The content of the string that was read last: bytes from … to-1 of `source`. */
  source: Uint8Array;
  from = 0;
  to = 0;
  /** Whether all of the text is UTF-8: undefined until somebody asks. */
  private isUtf8: boolean | undefined;
  /** The keys of the objects around the value that is skipped. */
  private readonly keys = new SeenNames();

  constructor(readonly bytes: Uint8Array) {
    this.end = bytes.length;
    this.source = bytes;
    if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) this.p = 3;
  }

  /** Skips white space. Returns the byte that stands at p then, -1 at the end. */
  next(): number {
    const { bytes } = this;
    let p = this.p;
    let byte = p < this.end ? (bytes[p] as number) : -1;
    while (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) {
      p++;
      byte = p < this.end ? (bytes[p] as number) : -1;
    }
    this.p = p;
    return byte;
  }

  /** @throws SluiceError json_invalid: the text is no JSON, seen at byte `at` */
  fail(wanted: string, at = this.p): never {
    const found = at >= this.end ? 'the body ends' : `there is ${this.byteAt(at)}`;
    throw new SluiceError('json_invalid', `The body is not JSON: at byte ${at} ${found} where ${wanted} should be.`, {
      offset: at,
    });
  }

  private byteAt(at: number): string {
    const byte = this.bytes[at] as number;
    return byte > 0x20 && byte < 0x7f
      ? `"${String.fromCharCode(byte)}"`
      : `the byte 0x${byte.toString(16).padStart(2, '0')}`;
  }

  /** Nothing but white space may follow. */
  finish(): void {
    if (this.next() >= 0) this.fail('the end');
  }

  /** What the value at p is, in words. */
  typeHere(): string {
    const byte = this.next();
    switch (byte) {
      case openBrace:
        return 'an object';
      case openBracket:
        return 'an array';
      case quote:
        return 'a string';
      case 0x74:
      case 0x66:
        return 'a boolean';
      case 0x6e:
        return 'null';
      default:
        if (byte === 0x2d || (byte >= 0x30 && byte <= 0x39)) return 'a number';
        return this.fail('a value');
    }
  }

  /** The value at p is of another type than wanted. */
  wrongType(wanted: string): never {
    const type = this.typeHere();
    throw new FieldFault(RejectionCode.TYPE, () => `expected ${wanted}, got ${type}`);
  }

  /** Moves behind `null`, when that is the value. */
  takeNull(): boolean {
    if (this.next() !== 0x6e) return false;
    this.literal('null');
    return true;
  }

  /** Moves behind `true`, `false` or `null`. */
  literal(word: string): void {
    for (let i = 0; i < word.length; i++) {
      if (this.bytes[this.p + i] !== word.charCodeAt(i)) this.fail(`"${word}"`, Math.min(this.p + i, this.end));
    }
    this.p += word.length;
  }

  /** Moves into an object. False: it is empty, and p is behind it. @throws FieldFault when the value is none */
  openObject(): boolean {
    if (this.next() !== openBrace) this.wrongType('an object');
    this.p++;
    if (this.next() !== closeBrace) return true;
    this.p++;
    return false;
  }

  /** Moves into an array. False: it is empty, and p is behind it. @throws FieldFault when the value is none */
  openArray(): boolean {
    if (this.next() !== openBracket) this.wrongType('an array');
    this.p++;
    if (this.next() !== closeBracket) return true;
    this.p++;
    return false;
  }

  /** After a member of an object: whether another one follows. */
  moreMembers(): boolean {
    const byte = this.next();
    if (byte !== comma && byte !== closeBrace) this.fail('"," or "}"');
    this.p++;
    return byte === comma;
  }

  /** After an item of an array: whether another one follows. */
  moreItems(): boolean {
    const byte = this.next();
    if (byte !== comma && byte !== closeBracket) this.fail('"," or "]"');
    this.p++;
    return byte === comma;
  }

  colon(): void {
    if (this.next() !== colon) this.fail('":"');
    this.p++;
  }

  /**
   * Reads the key at p and the colon after it. Undefined: none of the names; `source`, `from` and `to` say which.
   * @throws FieldFault when the key holds half of a surrogate pair
   */
  key<T>(names: NameTable<T>): T | undefined {
    if (this.next() !== quote) this.fail('a key in quotes');
    const { bytes } = this;
    const from = this.p + 1;
    let p = from;
    let hash = 0;
    let byte = bytes[p] as number;
    while (byte !== quote) {
      if (byte === backslash || !(byte >= 0x20)) {
        this.string();
        this.colon();
        return names.findIn(this.source, this.from, this.to);
      }
      hash = hashOf(hash, byte);
      byte = bytes[++p] as number;
    }
    this.p = p + 1;
    this.source = bytes;
    this.from = from;
    this.to = p;
    this.colon();
    return names.find(bytes, from, p, hash);
  }

  /**
   * Reads the string at p: its content is then bytes `from` … `to`-1 of `source`, which is the text itself, or a copy where there were
   * escapes. @throws FieldFault when it holds half of a surrogate pair
   */
  string(): void {
    const { bytes } = this;
    const from = this.p + 1;
    let p = from;
    let byte = bytes[p] as number;
    let escaped = false;
    while (byte !== quote) {
      if (byte === backslash) {
        escaped = true;
        p++;
      } else if (!(byte >= 0x20)) this.fail('the rest of a string', Math.min(p, this.end));
      byte = bytes[++p] as number;
    }
    this.source = bytes;
    this.from = from;
    this.to = p;
    if (!escaped) {
      this.p = p + 1;
      return;
    }
    const copy = new Uint8Array(p - from);
    this.to = this.copyString(copy, 0);
    this.source = copy;
    this.from = 0;
  }

  /**
   * Copies the content of the string at p, without its escapes, to `target` at `q`, and moves behind it. What does not fit is not
   * written. Returns where the copy ends. @throws FieldFault when the string holds half of a surrogate pair
   */
  copyString(target: Uint8Array, q: number): number {
    const { bytes } = this;
    let p = this.p + 1;
    let byte = bytes[p] as number;
    while (byte !== quote) {
      if (byte === backslash) {
        this.p = p;
        q = this.escape(target, q);
        p = this.p;
      } else {
        if (!(byte >= 0x20)) this.fail('the rest of a string', Math.min(p, this.end));
        target[q++] = byte;
        p++;
      }
      byte = bytes[p] as number;
    }
    this.p = p + 1;
    return q;
  }

  /** The escape at p as UTF-8. */
  private escape(target: Uint8Array, q: number): number {
    const plain = escapes[this.bytes[this.p + 1] as number];
    if (plain !== undefined) {
      this.p += 2;
      target[q] = plain;
      return q + 1;
    }
    const first = this.codeUnit();
    if (first < 0xd800 || first > 0xdfff) return putUtf8(target, q, first);
    const second =
      first < 0xdc00 && this.bytes[this.p] === backslash && this.bytes[this.p + 1] === 0x75 ? this.codeUnit() : 0;
    if (second < 0xdc00 || second > 0xdfff) {
      throw new FieldFault(
        RejectionCode.UTF8,
        () =>
          `holds half of a surrogate pair (\\u${first.toString(16)}), which is no character; was the text cut within one?`,
      );
    }
    return putUtf8(target, q, 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
  }

  /** The number in the `\uXXXX` at p. */
  private codeUnit(): number {
    const { bytes, p } = this;
    if (bytes[p + 1] !== 0x75) this.fail('one of "\\/bfnrtu" after a backslash', Math.min(p + 1, this.end));
    let unit = 0;
    for (let i = p + 2; i < p + 6; i++) {
      const digit = hexDigit(bytes[i] as number);
      if (digit < 0) this.fail('one of four hexadecimal digits', Math.min(i, this.end));
      unit = unit * 16 + digit;
    }
    this.p = p + 6;
    return unit;
  }

  /** Moves behind the number at p; its digits are then bytes `from` … `to`-1 of `source`. */
  number(): void {
    const to = numberEnd(this.bytes, this.p, this.end);
    if (to < 0) this.fail('a number in JSON form', Math.min(-to - 1, this.end));
    this.source = this.bytes;
    this.from = this.p;
    this.to = to;
    this.p = to;
  }

  /**
   * Moves behind the value at p, which must be JSON. It takes no stack, however deep the value is.
   * @param strict also refuses keys that come twice in one object, objects of more than 100 keys, text that is no UTF-8, and values that
   *   are nested too deep
   * @throws FieldFault when strict finds something
   */
  // biome-ignore lint/complexity/noExcessiveCognitiveComplexity: a loop in place of recursion, so that no depth of JSON takes stack
  skip(strict: boolean): void {
    let depth = 0;
    /** Of the object around the value, when strict. */
    let mark = 0;
    let marks: number[] | undefined;
    const keys = strict ? this.keys : undefined;
    if (keys !== undefined) keys.size = 0;
    for (;;) {
      const byte = this.next();
      if (byte === openBrace || byte === openBracket) {
        const isObject = byte === openBrace;
        if (strict && depth >= maxDepth) {
          throw new FieldFault(RejectionCode.TOO_DEEP, `nested more than ${maxDepth} levels deep`);
        }
        if (isObject ? this.openObject() : this.openArray()) {
          if (depth === levels.length) levels = grown(levels, depth * 2);
          levels[depth++] = isObject ? 1 : 0;
          if (keys !== undefined) {
            marks ??= [];
            marks.push(mark);
            mark = keys.size;
          }
          if (isObject) this.skipKey(keys, mark);
          continue;
        }
      } else this.skipPlain(byte, strict);
      // The value is over, and perhaps the containers around it.
      while (depth > 0) {
        const inObject = levels[depth - 1] === 1;
        if (inObject ? this.moreMembers() : this.moreItems()) {
          if (inObject) this.skipKey(keys, mark);
          break;
        }
        depth--;
        if (keys !== undefined) {
          keys.size = mark;
          mark = marks?.pop() ?? 0;
        }
      }
      if (depth === 0) break;
    }
    if (levels.length > keptLevels) levels = new Uint8Array(256);
  }

  private skipKey(keys: SeenNames | undefined, mark: number): void {
    if (this.next() !== quote) this.fail('a key in quotes');
    if (keys === undefined) this.skipString();
    else {
      this.string();
      this.checkUtf8();
      if (!keys.add(this.source, this.from, this.to, mark)) {
        throw new FieldFault(RejectionCode.REPEATED, () => `the key "${this.shown()}" comes twice`);
      }
      if (keys.size - mark > maxNames) {
        throw new FieldFault(RejectionCode.TOO_MANY, `holds an object of more than ${maxNames} keys`);
      }
    }
    this.colon();
  }

  private skipPlain(byte: number, strict: boolean): void {
    if (byte === quote && strict) {
      this.string();
      this.checkUtf8();
    } else if (byte === quote) this.skipString();
    else if (byte === 0x74) this.literal('true');
    else if (byte === 0x66) this.literal('false');
    else if (byte === 0x6e) this.literal('null');
    else if (byte === 0x2d || (byte >= 0x30 && byte <= 0x39)) this.number();
    else this.fail('a value');
  }

  private skipString(): void {
    const { bytes } = this;
    let p = this.p + 1;
    let byte = bytes[p] as number;
    while (byte !== quote) {
      if (byte === backslash) {
        this.p = p;
        if (escapes[bytes[p + 1] as number] === undefined) this.codeUnit();
        else this.p += 2;
        p = this.p;
      } else {
        if (!(byte >= 0x20)) this.fail('the rest of a string', Math.min(p, this.end));
        p++;
      }
      byte = bytes[p] as number;
    }
    this.p = p + 1;
  }

  /** @throws FieldFault when the string that was read last is no UTF-8 */
  checkUtf8(): void {
    // All of the text at once takes as long as a few hundred strings; escapes are always UTF-8.
    this.isUtf8 ??= isUtf8(this.bytes);
    if (this.isUtf8 || isUtf8(this.source.subarray(this.from, this.to))) return;
    throw new FieldFault(RejectionCode.UTF8, 'not valid UTF-8; strings must be');
  }

  /** The string that was read last. @throws FieldFault when it is no UTF-8 */
  decoded(): string {
    this.checkUtf8();
    const { source, from, to } = this;
    return Buffer.from(source.buffer, source.byteOffset + from, to - from).toString('utf8');
  }

  /** The string or number that was read last, for a message. */
  shown(): string {
    return shown(this.source, this.from, this.to);
  }
}

const escapes: readonly (number | undefined)[] = (() => {
  const table = Array<number | undefined>(256).fill(undefined);
  for (const [letter, byte] of [
    ['"', 0x22],
    ['\\', 0x5c],
    ['/', 0x2f],
    ['b', 0x08],
    ['f', 0x0c],
    ['n', 0x0a],
    ['r', 0x0d],
    ['t', 0x09],
  ] as const) {
    table[letter.charCodeAt(0)] = byte;
  }
  return table;
})();

/** -1: none. */
function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}

function putUtf8(target: Uint8Array, q: number, code: number): number {
  if (code < 0x80) {
    target[q++] = code;
  } else if (code < 0x800) {
    target[q++] = 0xc0 | (code >> 6);
    target[q++] = 0x80 | (code & 0x3f);
  } else if (code < 0x10000) {
    target[q++] = 0xe0 | (code >> 12);
    target[q++] = 0x80 | ((code >> 6) & 0x3f);
    target[q++] = 0x80 | (code & 0x3f);
  } else {
    target[q++] = 0xf0 | (code >> 18);
    target[q++] = 0x80 | ((code >> 12) & 0x3f);
    target[q++] = 0x80 | ((code >> 6) & 0x3f);
    target[q++] = 0x80 | (code & 0x3f);
  }
  return q;
}

function grown(bytes: Uint8Array, size: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(size);
  larger.set(bytes);
  return larger;
}

/** From p on, behind all digits. */
function digitsEnd(bytes: Uint8Array, from: number, end: number): number {
  let p = from;
  while (p < end && (bytes[p] as number) >= 0x30 && (bytes[p] as number) <= 0x39) p++;
  return p;
}

/**
 * Where the number that begins at `from` ends, by the grammar of JSON: no leading zeros, no plus sign, digits on both sides of a point.
 * Negative: it is none, seen at byte -n - 1.
 */
export function numberEnd(bytes: Uint8Array, from: number, end: number): number {
  let p = from < end && bytes[from] === 0x2d ? from + 1 : from;
  const first = p;
  p = p < end && bytes[p] === 0x30 ? p + 1 : digitsEnd(bytes, p, end);
  if (p === first) return -p - 1;
  if (p < end && bytes[p] === 0x2e) {
    const point = p;
    p = digitsEnd(bytes, p + 1, end);
    if (p === point + 1) return -p - 1;
  }
  if (p < end && (bytes[p] === 0x65 || bytes[p] === 0x45)) {
    p++;
    if (p < end && (bytes[p] === 0x2b || bytes[p] === 0x2d)) p++;
    const exponent = p;
    p = digitsEnd(bytes, p, end);
    if (p === exponent) return -p - 1;
  }
  return p;
}
