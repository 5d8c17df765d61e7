import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HeaderBlockReader } from './h2-header-blocks.js';

function read(reader: HeaderBlockReader, hex: string): string[] {
  const headers: string[] = [];
  reader.read(Buffer.from(hex.replaceAll(' ', ''), 'hex'), (name, value) => headers.push(`${name}: ${value}`));
  return headers;
}

test("the answers of RFC 7541's appendix C.6 are read, with codes, a table and entries that leave it", () => {
  const reader = new HeaderBlockReader(256);
  const first =
    '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b' +
    '97c8 e9ae 82ae 43d3';
  const date = 'date: Mon, 21 Oct 2013 20:13:21 GMT';
  const location = 'location: https://www.example.com';
  assert.equal(read(reader, first), [':status: 302', 'cache-control: private', date, location]);
  assert.equal(read(reader, '4883 640e ffc1 c0bf'), [':status: 307', 'cache-control: private', date, location]);
  // 307 is the newest, and 302 has left.
  assert.equal(read(reader, 'be c1'), [':status: 307', 'cache-control: private']);
  assert.throws(() => read(reader, 'c2'), /entry 66/);
});

test('plain texts, texts that stay out of the table, and a smaller table are read', () => {
  const reader = new HeaderBlockReader();
  const status = '0b 67 72 70 63 2d 73 74 61 74 75 73';
  assert.equal(read(reader, `40 ${status} 01 30`), ['grpc-status: 0']);
  assert.equal(read(reader, `00 ${status} 02 31 34 be`), ['grpc-status: 14', 'grpc-status: 0']);
  assert.equal(read(reader, '20 88'), [':status: 200']);
  assert.throws(() => read(reader, 'be'), /entry 62/);
  assert.throws(() => read(reader, '3f e2 1f'), /more headers than it may/);
});

test('bytes that are no header block are refused', () => {
  for (const hex of ['40', '40 05 61', '7f', '7f ff ff ff ff ff', '80', '00 84 ff ff ff ff 00']) {
    assert.throws(() => read(new HeaderBlockReader(), hex), Error, hex);
  }
});

test.run();
