/**
 * Valid requests of every kind that the gateway serves: what mutations begin from, and what is sent as it is between them.
 */
import { gzipSync } from 'node:zlib';
import { create, toBinary, toJsonString } from '@bufbuild/protobuf';
import { HealthCheckRequestSchema } from '#gen/grpc/health/v1/health_pb.js';
import { ServerReflectionRequestSchema } from '#gen/grpc/reflection/v1/reflection_pb.js';
import {
  GetBatchStatusRequestSchema,
  PublishRequestSchema,
  PublishStreamRequestSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import { integer, makeBatch, type Random } from '../../lib/testing/batches.js';
import { envelope, service } from '../wire/messages.js';

export interface Request {
  readonly method: string;
  readonly path: string;
  /** Without pseudo-headers and without the key. */
  readonly headers: readonly (readonly [string, string])[];
  readonly body: Buffer;
}

export interface Case {
  readonly name: string;
  /** HTTP/1.1 has no streams of requests. */
  readonly http1: boolean;
  /** Of a batch that is to be accepted; undefined: the request publishes nothing. */
  readonly events: number | undefined;
  readonly make: (random: Random, batchId: string) => Request;
}

const eventsOfCase = 2;
const post = (path: string, type: string, body: Uint8Array, more: Request['headers'] = []): Request => ({
  method: 'POST',
  path,
  headers: [['content-type', type], ...more],
  body: Buffer.from(body),
});

const publishRequest = (random: Random, batchId: string) =>
  create(PublishRequestSchema, { batch: makeBatch(random, eventsOfCase), batchId });

/** Publish as a message in each encoding. */
const message = (random: Random, batchId: string, json: boolean): Uint8Array => {
  const request = publishRequest(random, batchId);
  return json ? Buffer.from(toJsonString(PublishRequestSchema, request)) : toBinary(PublishRequestSchema, request);
};

const te = [['te', 'trailers']] as const;
const protobufAndJson = [false, true];
const withAndWithoutGzip = [false, true];

const publishCases: readonly Case[] = protobufAndJson.flatMap((json) =>
  withAndWithoutGzip.flatMap((gzip): Case[] => {
    const pack = (bytes: Uint8Array): Uint8Array => (gzip ? gzipSync(bytes, { level: 1 }) : bytes);
    const suffix = `${json ? ', JSON' : ''}${gzip ? ', gzip' : ''}`;
    const plus = json ? '+json' : '+proto';
    const encoding = (name: string): Request['headers'] => (gzip ? [[name, 'gzip']] : []);
    const framed = (random: Random, batchId: string) => envelope(pack(message(random, batchId, json)), gzip ? 1 : 0);
    const common = { events: eventsOfCase };
    return [
      {
        ...common,
        name: `gRPC${suffix}`,
        http1: false,
        make: (random, id) =>
          post(`${service}Publish`, `application/grpc${plus}`, framed(random, id), [
            ...te,
            ...encoding('grpc-encoding'),
          ]),
      },
      {
        ...common,
        name: `gRPC-Web${suffix}`,
        http1: true,
        make: (random, id) =>
          post(`${service}Publish`, `application/grpc-web${plus}`, framed(random, id), encoding('grpc-encoding')),
      },
      {
        ...common,
        name: `gRPC-Web text${suffix}`,
        http1: true,
        make: (random, id) =>
          post(
            `${service}Publish`,
            `application/grpc-web-text${plus}`,
            Buffer.from(framed(random, id).toString('base64')),
            encoding('grpc-encoding'),
          ),
      },
      {
        ...common,
        name: `Connect${suffix}`,
        http1: true,
        make: (random, id) =>
          post(`${service}Publish`, json ? 'application/json' : 'application/proto', pack(message(random, id, json)), [
            ['connect-protocol-version', '1'],
            ...encoding('content-encoding'),
          ]),
      },
    ];
  }),
);

const flat = (random: Random, batchId: string): string => {
  const { batch } = JSON.parse(toJsonString(PublishRequestSchema, publishRequest(random, batchId))) as {
    batch: { events: unknown[] };
  };
  return JSON.stringify({ batchId, events: batch.events });
};

const plainCases: readonly Case[] = withAndWithoutGzip.map((gzip) => ({
  name: `HTTP batch${gzip ? ', gzip' : ''}`,
  http1: true,
  events: eventsOfCase,
  make: (random, id) =>
    post(
      '/v1/events/batch',
      'application/json',
      gzip ? gzipSync(flat(random, id), { level: 1 }) : Buffer.from(flat(random, id)),
      gzip ? [['content-encoding', 'gzip']] : [],
    ),
}));

/** A stream of one to three messages; its answers are not looked into. */
const streamCase = (json: boolean, protocol: 'grpc' | 'grpc-web' | 'connect'): Case => ({
  name: `stream, ${protocol}${json ? ', JSON' : ''}`,
  http1: false,
  events: undefined,
  make: (random, id) => {
    const messages = Array.from({ length: integer(random, 1, 3) }, (_, i) => {
      const batch = { batch: makeBatch(random, 1), batchId: `${id}-${i}` };
      const made = create(PublishStreamRequestSchema, batch);
      return json
        ? Buffer.from(toJsonString(PublishStreamRequestSchema, made))
        : Buffer.from(toBinary(PublishStreamRequestSchema, made));
    });
    const body = Buffer.concat(messages.map((bytes) => envelope(bytes)));
    return post(`${service}PublishStream`, `application/${protocol}${json ? '+json' : '+proto'}`, body, te);
  },
});

const question = (name: string, make: Case['make'], http1 = true): Case => ({ name, http1, events: undefined, make });
const health = '/grpc.health.v1.Health/';
const reflection = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';

const others: readonly Case[] = [
  ...protobufAndJson.flatMap((json) =>
    (['grpc', 'grpc-web', 'connect'] as const).map((kind) => streamCase(json, kind)),
  ),
  question('limits', () => post(`${service}GetLimits`, 'application/json', Buffer.from('{}'))),
  question(
    'limits, gRPC',
    () => post(`${service}GetLimits`, 'application/grpc', envelope(new Uint8Array()), te),
    false,
  ),
  question('limits by GET', () => ({
    method: 'GET',
    path: `${service}GetLimits?connect=v1&encoding=json&message=%7B%7D`,
    headers: [],
    body: Buffer.alloc(0),
  })),
  question(
    'batch status, gRPC',
    (_, batchId) =>
      post(
        `${service}GetBatchStatus`,
        'application/grpc',
        envelope(
          toBinary(GetBatchStatusRequestSchema, create(GetBatchStatusRequestSchema, { batchId: `${batchId} ` })),
        ),
        te,
      ),
    false,
  ),
  question('health', () => post(`${health}Check`, 'application/json', Buffer.from('{"service":""}'))),
  question(
    'health, gRPC',
    () =>
      post(
        `${health}Check`,
        'application/grpc',
        envelope(toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, {}))),
        te,
      ),
    false,
  ),
  question(
    'reflection',
    () =>
      post(
        reflection,
        'application/grpc',
        envelope(
          toBinary(
            ServerReflectionRequestSchema,
            create(ServerReflectionRequestSchema, { messageRequest: { case: 'listServices', value: '' } }),
          ),
        ),
        te,
      ),
    false,
  ),
  question('probe', () => ({ method: 'GET', path: '/readyz', headers: [], body: Buffer.alloc(0) })),
];

export const cases: readonly Case[] = [...publishCases, ...plainCases, ...others];
