/** Mutations of bytes and of headers, from a seeded generator: the same seed mutates the same. */
import { gzipSync } from 'node:zlib';
import { integer, pick, type Random } from '../../lib/testing/batches.js';
import { KiB, MiB } from '../../lib/units.js';
import type { Request } from './corpus.js';

type OnBytes = (random: Random, bytes: Buffer, other: Buffer) => Buffer;

const place = (random: Random, bytes: Buffer): number => integer(random, 0, Math.max(0, bytes.length - 1));
const slice = (random: Random, bytes: Buffer): [number, number] => {
  const from = place(random, bytes);
  return [from, Math.min(bytes.length, from + integer(random, 1, 64))];
};
const noise = (random: Random, size: number): Buffer =>
  Buffer.from(Array.from({ length: size }, () => integer(random, 0, 255)));

const varints = [
  [0x00],
  [0x7f],
  [0xff, 0x01],
  [0xff, 0xff, 0xff, 0xff, 0x0f],
  Array(10).fill(0xff),
  [0x80, 0x80, 0x00],
];
const sizes = [0, 1, 4, 5, 0x7fff_ffff, 0xffff_ffff, 64 * KiB, MiB, MiB + 64 * KiB + 1];
const texts = [
  '{',
  '}',
  '[',
  ']',
  '"',
  '\\',
  '\\u',
  '\\ud800',
  ',',
  ':',
  '1e999',
  '-0',
  '00',
  'null',
  '\0',
  '\xff',
  '\x80',
];

/** Bits, ends, lengths, numbers, parts of another request. */
const onBytes: readonly OnBytes[] = [
  (random, bytes) => {
    for (let i = integer(random, 1, 8); i > 0 && bytes.length > 0; i--) {
      const at = place(random, bytes);
      bytes[at] = (bytes[at] as number) ^ (1 << integer(random, 0, 7));
    }
    return bytes;
  },
  (random, bytes) => bytes.subarray(0, integer(random, 0, bytes.length)),
  (random, bytes) => bytes.subarray(integer(random, 0, Math.min(bytes.length, 16))),
  (random, bytes) => Buffer.concat([bytes, noise(random, integer(random, 1, 64))]),
  (random, bytes) => {
    const at = place(random, bytes);
    return Buffer.concat([bytes.subarray(0, at), Buffer.from(pick(random, varints)), bytes.subarray(at + 1)]);
  },
  (random, bytes) => {
    const at = place(random, bytes);
    return Buffer.concat([bytes.subarray(0, at), Buffer.from(pick(random, texts), 'latin1'), bytes.subarray(at)]);
  },
  (random, bytes) => {
    const [from, to] = slice(random, bytes);
    return Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]);
  },
  (random, bytes) => {
    const [from, to] = slice(random, bytes);
    const times = integer(random, 1, 20);
    const parts = Array.from({ length: times }, () => bytes.subarray(from, to));
    return Buffer.concat([bytes.subarray(0, to), ...parts, bytes.subarray(to)]);
  },
  // The first half of one request, the second of another.
  (random, bytes, other) =>
    Buffer.concat([bytes.subarray(0, place(random, bytes)), other.subarray(place(random, other))]),
  (_, bytes, other) => Buffer.concat([bytes, other]),
  (_, bytes) => Buffer.concat([bytes, bytes]),
  // Flags and length of the first envelope.
  (random, bytes) => {
    if (bytes.length > 0) bytes[0] = integer(random, 0, 255);
    return bytes;
  },
  (random, bytes) => {
    if (bytes.length >= 5) bytes.writeUInt32BE(pick(random, sizes), 1);
    return bytes;
  },
  (_, bytes) => gzipSync(bytes, { level: 1 }),
  (random, bytes) =>
    random() < 0.02 ? Buffer.concat([bytes, Buffer.alloc(pick(random, [64, 1024, 1088, 4160]) * KiB)]) : bytes,
  () => Buffer.alloc(0),
];

export function mutatedBytes(random: Random, bytes: Buffer, other: Buffer): Buffer {
  let result: Buffer = Buffer.from(bytes);
  for (let i = random() < 0.7 ? 1 : integer(random, 2, 4); i > 0; i--) {
    result = Buffer.from(pick(random, onBytes)(random, result, other));
  }
  return result;
}

const values = [
  '',
  ' ',
  '0',
  '-1',
  '1n',
  '1u',
  '99999999H',
  '18446744073709551616',
  'gzip',
  'br',
  'identity',
  'deflate',
  'application/grpc',
  'application/grpc+json',
  'application/grpc-web-text',
  'application/json; charset=utf-16',
  'application/connect+proto',
  'application/proto',
  'text/plain',
  'chunked',
  '00-00000000000000000000000000000001-0000000000000001-01',
  'Bearer x',
  'x'.repeat(300),
  'é',
  '"\\"',
];
const names = [
  'content-type',
  'content-encoding',
  'grpc-encoding',
  'grpc-accept-encoding',
  'connect-content-encoding',
  'accept-encoding',
  'grpc-timeout',
  'connect-timeout-ms',
  'connect-protocol-version',
  'authorization',
  'user-agent',
  'x-user-agent',
  'traceparent',
  'idempotency-key',
  'sluice-unknown-fields',
  'grpc-previous-rpc-attempts',
  'x-envoy-attempt-count',
  'origin',
  'expect',
  'te',
  'x-forwarded-for',
];
const paths = ['/', '*', '/v1/events', '/v1/events?', '/healthz', '//', '/%', '/sluice.ingest.v1.IngestService/', ''];
const methods = ['GET', 'PUT', 'OPTIONS', 'HEAD', 'PATCH', 'X'];

type OnRequest = (random: Random, request: Request, other: Request) => Partial<Request>;

const onRequest: readonly OnRequest[] = [
  (random, { headers }) => ({ headers: headers.filter(() => random() < 0.7) }),
  (random, { headers }) => ({ headers: [...headers, ...headers.filter(() => random() < 0.7)] }),
  (random, { headers }) => ({
    headers: headers.map(([name, value]) => [name, random() < 0.5 ? pick(random, values) : value] as const),
  }),
  (random, { headers }) => ({ headers: [...headers, [pick(random, names), pick(random, values)]] }),
  (_, __, { headers }) => ({ headers }),
  (_, __, { path }) => ({ path }),
  (random) => ({ path: pick(random, paths) }),
  (random) => ({ method: pick(random, methods) }),
];

export function mutatedRequest(random: Random, request: Request, other: Request): Request {
  let result = request;
  const what = random();
  if (what < 0.75) result = { ...result, body: mutatedBytes(random, result.body, other.body) };
  if (what > 0.6) {
    for (let i = integer(random, 1, 2); i > 0; i--)
      result = { ...result, ...pick(random, onRequest)(random, result, other) };
  }
  return result;
}
