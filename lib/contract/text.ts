/**
 * Checks of text in place, without decoding: UTF-8 and the character sets of the rules.
 *
 * Each kind of text has a fast test, true for what nearly all traffic holds (ASCII), that looks at four bytes a step;
 * what fails it goes to `textFault`, which decides exactly. With ids checked byte by byte the whole scan ran 8 % slower
 * (`bench -- parse`).
 */
import { Charset } from '#gen/sluice/rules/v1/rules_pb.js';

/** Why a text is refused; 0 when it is fine. */
export const textOk = 0;
export const textUtf8 = 1;
export const textCharset = 2;

/** Whether bytes p … q-1 are all ASCII. */
export function ascii(bytes: Uint8Array, view: DataView, p: number, q: number): boolean {
  if (q - p < 4) {
    let bits = 0;
    for (; p < q; p++) bits |= bytes[p]!;
    return bits < 0x80;
  }
  // The last step overlaps the one before: no loop over a rest.
  let bits = view.getInt32(q - 4, true);
  for (const last = q - 4; p < last; p += 4) bits |= view.getInt32(p, true);
  return (bits & 0x80808080) === 0;
}

/** Whether bytes p … q-1 are all ASCII without control characters; false may also mean "look closer". */
export function plainAscii(bytes: Uint8Array, view: DataView, p: number, q: number): boolean {
  if (q - p < 4) {
    for (; p < q; p++) {
      const byte = bytes[p]!;
      if (byte < 0x20 || byte > 0x7e) return false;
    }
    return true;
  }
  let word = view.getInt32(q - 4, true);
  // In each byte's top bit: not ASCII | below 0x20 | 0x7F. A borrow or carry starts only at a byte that is refused.
  let bits = word | (word - 0x20202020) | (word + 0x01010101);
  for (const last = q - 4; p < last; p += 4) {
    word = view.getInt32(p, true);
    bits |= word | (word - 0x20202020) | (word + 0x01010101);
  }
  return (bits & 0x80808080) === 0;
}

const tokenBytes = new Uint8Array(256);
for (const char of 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/-') {
  tokenBytes[char.charCodeAt(0)] = 1;
}

/** Whether bytes p … q-1 are letters, digits and . _ : / - only. */
export function token(bytes: Uint8Array, view: DataView, p: number, q: number): boolean {
  if (q - p < 4) return tokenByByte(bytes, p, q);
  let word = view.getInt32(q - 4, true);
  let all = tokens(word) & ~word;
  for (const last = q - 4; p < last; p += 4) {
    word = view.getInt32(p, true);
    all &= tokens(word) & ~word;
  }
  return (all & 0x80808080) === (0x80808080 | 0);
}

function tokenByByte(bytes: Uint8Array, p: number, q: number): boolean {
  let all = 1;
  for (; p < q; p++) all &= tokenBytes[bytes[p]!]!;
  return all === 1;
}

/**
 * Sets the top bit of each of four ASCII bytes that is a token character. Adding 0x80 - c sets it for bytes ≥ c.
 */
function tokens(word: number): number {
  const folded = word | 0x20202020;
  // - . / 0 … 9 : | a … z and A … Z | _
  return (
    ((word + 0x53535353) & ~(word + 0x45454545)) |
    ((folded + 0x1f1f1f1f) & ~(folded + 0x05050505)) |
    ~((word ^ 0x5f5f5f5f) + 0x7f7f7f7f)
  );
}

/** Whether bytes p … q-1 are A-Z only. */
export function upperAlpha(bytes: Uint8Array, _view: DataView | undefined, p: number, q: number): boolean {
  for (; p < q; p++) {
    const byte = bytes[p]!;
    if (byte < 0x41 || byte > 0x5a) return false;
  }
  return true;
}

/** Exactly what is wrong with the text in bytes p … q-1: nothing, its UTF-8, or a character that `charset` forbids. */
export function textFault(bytes: Uint8Array, p: number, q: number, charset: Charset): number {
  if (!validUtf8(bytes, p, q)) return textUtf8;
  switch (charset) {
    case Charset.UNSPECIFIED:
      return textOk;
    case Charset.TOKEN:
      return tokenByByte(bytes, p, q) ? textOk : textCharset;
    case Charset.UPPER_ALPHA:
      return upperAlpha(bytes, undefined, p, q) ? textOk : textCharset;
    case Charset.NO_CONTROL:
      for (; p < q; p++) {
        const byte = bytes[p]!;
        if (byte < 0x20 || byte === 0x7f) return textCharset;
      }
      return textOk;
  }
}

/** Strict UTF-8 (RFC 3629): no over-long form, no surrogate, nothing above U+10FFFF, nothing cut short. */
// biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one pass over the bytes of a text, case by case as RFC 3629 has them
export function validUtf8(bytes: Uint8Array, p: number, q: number): boolean {
  while (p < q) {
    const lead = bytes[p++]!;
    if (lead < 0x80) continue;
    // C0 and C1 would be over-long; 80 to BF continue nothing.
    if (lead < 0xc2) return false;
    if (lead < 0xe0) {
      if (p >= q || (bytes[p++]! & 0xc0) !== 0x80) return false;
    } else if (lead < 0xf0) {
      if (p + 1 >= q) return false;
      const second = bytes[p]!;
      if ((second & 0xc0) !== 0x80 || (bytes[p + 1]! & 0xc0) !== 0x80) return false;
      // E0 80…9F is over-long, ED A0…BF is a surrogate.
      if ((lead === 0xe0 && second < 0xa0) || (lead === 0xed && second > 0x9f)) return false;
      p += 2;
    } else {
      if (lead > 0xf4 || p + 2 >= q) return false;
      const second = bytes[p]!;
      if ((second & 0xc0) !== 0x80 || (bytes[p + 1]! & 0xc0) !== 0x80 || (bytes[p + 2]! & 0xc0) !== 0x80) return false;
      // F0 80…8F is over-long, F4 90…BF is above U+10FFFF.
      if ((lead === 0xf0 && second < 0x90) || (lead === 0xf4 && second > 0x8f)) return false;
      p += 3;
    }
  }
  return true;
}
