import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Charset } from '#gen/sluice/rules/v1/rules_pb.js';
import { ascii, plainAscii, textFault, textOk, textUtf8, token, upperAlpha, validUtf8 } from './text.js';

const decoder = new TextDecoder('utf-8', { fatal: true });

function decodes(bytes: Uint8Array): boolean {
  try {
    decoder.decode(bytes);
    return true;
  } catch {
    return false;
  }
}

test('valid UTF-8 is what a fatal TextDecoder decodes: all sequences of up to two bytes, three and four around each edge', () => {
  const edges = [0, 0x61, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed];
  edges.push(0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff);
  const all = Array.from({ length: 256 }, (_, i) => i);
  const check = (...values: number[]) => {
    const bytes = Uint8Array.from(values);
    if (validUtf8(bytes, 0, bytes.length) !== decodes(bytes)) assert.unreachable(`bytes ${values.join(' ')}`);
  };
  check();
  for (const a of all) {
    check(a);
    for (const b of all) check(a, b);
    for (const b of edges) for (const c of edges) check(a, b, c);
  }
  for (const a of edges) for (const b of edges) for (const c of edges) for (const d of edges) check(a, b, c, d);
});

test('text is judged within its bounds: what lies before and behind does not matter', () => {
  const bytes = Uint8Array.of(0xff, 0xc3, 0xa9, 0xa9, 0xff);
  assert.ok(validUtf8(bytes, 1, 3));
  assert.not.ok(validUtf8(bytes, 1, 2), 'cut short, although the next byte would continue it');
  assert.not.ok(validUtf8(bytes, 1, 4));
  assert.ok(validUtf8(bytes, 5, 5));
});

const code = (char: string): number => char.charCodeAt(0);
const tokenSet = new Set([...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/-'].map(code));

/** Asks all fast tests about a text with `byte` in one place, in which all others are `filler`. */
function assertAgree(bytes: Uint8Array, view: DataView, byte: number, filler: string, where: string): void {
  const end = bytes.length - 1;
  if (ascii(bytes, view, 1, end) !== byte < 0x80) assert.unreachable(`ascii: ${where}`);
  if (token(bytes, view, 1, end) !== tokenSet.has(byte)) assert.unreachable(`token: ${where}`);
  const plain = byte >= 0x20 && byte < 0x7f;
  if (plainAscii(bytes, view, 1, end) !== plain) assert.unreachable(`plainAscii: ${where}`);
  const upper = byte >= 0x41 && byte <= 0x5a && (filler === 'A' || end === 2);
  if (upperAlpha(bytes, view, 1, end) !== upper) assert.unreachable(`upperAlpha: ${where}`);
}

test('the fast tests agree with a look at each byte, for every byte at every place of texts up to 13 bytes', () => {
  for (const filler of ['A', 'z', '0', '_', ':']) {
    for (let size = 0; size <= 13; size++) {
      // One byte before and one behind that would be refused: a fast test must not look at them.
      const bytes = new Uint8Array(size + 2).fill(code(filler));
      bytes[0] = 0xff;
      bytes[size + 1] = 0xff;
      const view = new DataView(bytes.buffer);
      for (let at = 1; at <= size; at++) {
        for (let byte = 0; byte < 256; byte++) {
          bytes[at] = byte;
          assertAgree(bytes, view, byte, filler, `${filler} × ${size}, byte ${byte} at ${at}`);
        }
        bytes[at] = code(filler);
      }
      assert.ok(ascii(bytes, view, 1, size + 1));
      assert.ok(token(bytes, view, 1, size + 1));
      assert.ok(plainAscii(bytes, view, 1, size + 1));
    }
  }
});

test('broken UTF-8 is reported before a refused character', () => {
  const bytes = Uint8Array.of(0x20, 0xff);
  assert.is(textFault(bytes, 0, 2, Charset.TOKEN), textUtf8);
});

test('a text without control characters may hold any other character, C1 controls included', () => {
  const bytes = new TextEncoder().encode('é\u0085\u{1f600} ~');
  assert.is(textFault(bytes, 0, bytes.length, Charset.NO_CONTROL), textOk);
});

test.run();
