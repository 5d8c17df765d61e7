/** Requests as a client of the gateway sends them, and the beginnings of requests. */
import { create, toBinary } from '@bufbuild/protobuf';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import type { Headers } from './h2.js';

export const service = '/sluice.ingest.v1.IngestService/';

/** No key of any tenant. */
export const wrongKey = (n = 0): string => `slk_${n.toString(16).padStart(12, '0')}_${'A'.repeat(32)}`;

export const bearer = (key: string): string => `Bearer ${key}`;

/** Headers of a gRPC call; without a key when it is undefined. */
export const grpcHeaders = (path: string, key: string | undefined, more: Headers = []): Headers => [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':authority', 'gateway.example'],
  [':path', path],
  ['content-type', 'application/grpc+proto'],
  ['te', 'trailers'],
  ...(key === undefined ? [] : ([['authorization', bearer(key)]] as const)),
  ...more,
];

/** Headers of any other request over HTTP/2. */
export const plainHeaders = (method: string, path: string, more: Headers = []): Headers => [
  [':method', method],
  [':scheme', 'http'],
  [':authority', 'gateway.example'],
  [':path', path],
  ...more,
];

/** A message with its five bytes before it. @param length stated instead of the true one */
export function envelope(message: Uint8Array, flags = 0, length = message.length): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

/** Makes PublishRequests of the same events, each with another batch id. */
export function publishRequests(events: number, seed = 1): (batchId: string) => Buffer {
  const batch = encodeBatch(makeBatch(createRandom(seed), events));
  const length: number[] = [];
  let rest = batch.length;
  for (; rest > 127; rest >>>= 7) length.push((rest & 127) | 128);
  length.push(rest);
  const head = Buffer.from([0x0a, ...length]);
  return (batchId) =>
    Buffer.concat([head, batch, toBinary(PublishRequestSchema, create(PublishRequestSchema, { batchId, attempt: 1 }))]);
}
