/** The hot path against the RPC library: the same calls to two gateways, and all of the answers compared. */
import type { OutgoingHttpHeaders } from 'node:http2';
import { create, fromBinary, type JsonValue, toJson } from '@bufbuild/protobuf';
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { jetstreamManager } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishResponseSchema, PublishStreamResponseSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import type { GatewayConfig } from '../../../lib/config/index.js';
import { generationOf } from '../../../lib/log-streams.js';
import { committedSubject } from '../../../lib/subjects.js';
import { createRandom, encodeBatch, makeBatch } from '../../../lib/testing/batches.js';
import {
  type BareAnswer,
  type BareCall,
  bareCall,
  envelopesOf,
  type Piece,
  withSession,
} from '../../testing/bare-call.js';
import { stored } from '../../testing/ingest.js';
import { type RunningGateway, withGateway } from '../../testing/running-gateway.js';

const unaryPath = '/sluice.ingest.v1.IngestService/Publish';
const streamPath = '/sluice.ingest.v1.IngestService/PublishStream';
const settings: Partial<GatewayConfig> = {
  maxBatchBytes: 96 * 1024,
  maxBatchEvents: 1_000,
  corsOrigins: ['https://shop.example'],
};

/** A call to either gateway: the key is put in where the headers leave it open. */
interface Case {
  readonly name: string;
  readonly headers: OutgoingHttpHeaders;
  readonly pieces: readonly Piece[];
}

const random = createRandom(41);
const small = encodeBatch(makeBatch(random, 3));
const middle = encodeBatch(makeBatch(random, 400));
let ids = 0;
const nextId = (): string => `b${++ids}`;

/** Of PublishRequest and PublishStreamRequest, which are the same but for the options. */
function request(batch: Uint8Array, id = nextId()): BinaryWriter {
  return new BinaryWriter().tag(1, 2).bytes(batch).tag(2, 2).string(id).tag(3, 0).uint32(1);
}
const good = (): Uint8Array => request(small).finish();

function envelope(bytes: Uint8Array, flags = 0, size = bytes.length): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(size, 1);
  return Buffer.concat([head, bytes]);
}

/** Messages that decoders may read in more ways than one. */
const oddMessages = (): Record<string, Uint8Array> => {
  const time = new BinaryWriter().tag(1, 0).int64(1_767_225_600).tag(2, 0).int32(5).finish();
  const early = new BinaryWriter().tag(1, 0).int64(-5).tag(2, 0).int32(999_999_999).finish();
  const tail = (bytes: Uint8Array): Uint8Array => Buffer.concat([good(), bytes]);
  return {
    good: good(),
    'of four hundred events': request(middle).finish(),
    'with a time': request(small).tag(4, 2).bytes(time).finish(),
    'with a time before 1970': request(small).tag(4, 2).bytes(early).finish(),
    'with nanoseconds alone': request(small).tag(4, 2).bytes(Uint8Array.of(0x10, 1)).finish(),
    'with nanoseconds first': request(small)
      .tag(4, 2)
      .bytes(Uint8Array.of(0x10, 1, 0x08, 2))
      .finish(),
    'with an empty time': request(small).tag(4, 2).bytes(Uint8Array.of()).finish(),
    'with a broken time': request(small).tag(4, 2).bytes(Uint8Array.of(0x08)).finish(),
    'with a time of other fields': request(small).tag(4, 2).bytes(Uint8Array.of(0x18, 1)).finish(),
    'with two times': request(small).tag(4, 2).bytes(time).tag(4, 2).bytes(Uint8Array.of(0x10, 7)).finish(),
    'with the batch in parts': Buffer.concat([good(), new BinaryWriter().tag(1, 2).bytes(small).finish()]),
    'without a batch': new BinaryWriter().tag(2, 2).string(nextId()).finish(),
    'with an empty batch': request(Uint8Array.of()).finish(),
    'with two ids': tail(new BinaryWriter().tag(2, 2).string('the-last').finish()),
    'with two attempts': tail(Uint8Array.of(0x18, 7)),
    'with a large attempt': tail(Uint8Array.of(0x18, 0xff, 0xff, 0xff, 0xff, 0x0f)),
    'with too large an attempt': tail(Uint8Array.of(0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01)),
    'with unknown fields': tail(new BinaryWriter().tag(99, 2).string('x').tag(100, 0).uint32(1).finish()),
    'with a group': tail(new BinaryWriter().tag(77, 3).tag(1, 0).uint32(1).tag(77, 4).finish()),
    'with an end of no group': tail(new BinaryWriter().tag(77, 4).finish()),
    'with field 0': tail(Uint8Array.of(0x02, 0x00)),
    'with wire type 6': tail(Uint8Array.of(0x0e, 0x00)),
    'with an id that is a number': tail(Uint8Array.of(0x10, 0x01)),
    'with an attempt that is a text': tail(Uint8Array.of(0x1a, 0x01, 0x41)),
    'with an id that is not UTF-8': new BinaryWriter().tag(2, 2).bytes(Uint8Array.of(0xff, 0xfe)).finish(),
    'with an id in letters of Greece': request(small, 'αβγ').finish(),
    'with an id with a space': request(small, 'a b').finish(),
    'with an id of 64 bytes': request(small, 'y'.repeat(64)).finish(),
    'with an id of 65 bytes': request(small, 'x'.repeat(65)).finish(),
    'with an id of 70,000 bytes': request(small, 'x'.repeat(70_000)).finish(),
    'with a padded length': Buffer.concat([Uint8Array.of(0x12, 0x81, 0x00, 0x41), good()]),
    'cut within a length': Uint8Array.of(0x0a, 0x80),
    'cut within the batch': good().subarray(0, 40),
    'a tag alone': Uint8Array.of(0x0a),
    'longer than it is': Uint8Array.of(0x0a, 0xff, 0xff, 0xff, 0xff, 0x07),
    'with options': tail(Uint8Array.of(0x2a, 0x02, 0x08, 0x01)),
    'with options alone': Uint8Array.of(0x2a, 0x02, 0x08, 0x01),
    'with durability committed': tail(Uint8Array.of(0x2a, 0x02, 0x08, 0x02)),
    'with durability committed alone': Uint8Array.of(0x2a, 0x02, 0x08, 0x02),
    'with durability committed and nothing valid': request(Uint8Array.of(0x0a, 0x00))
      .tag(5, 2)
      .bytes(Uint8Array.of(0x08, 0x02))
      .finish(),
    'with a durability of tomorrow': tail(Uint8Array.of(0x2a, 0x02, 0x08, 0x07)),
    'with empty options': tail(Uint8Array.of(0x2a, 0x00)),
    'with invalid events': request(Buffer.concat([small, Uint8Array.of(0x0a, 0x00), small])).finish(),
    'with a field that no batch has': request(Uint8Array.of(0x12, 0x00)).finish(),
    'with too many events': request(Buffer.concat(Array.from({ length: 400 }, () => small))).finish(),
    'too large a batch': request(Buffer.concat([middle, middle])).finish(),
    noise: Uint8Array.from({ length: 50 }, () => Math.floor(random() * 256)),
  };
};

/** A message in pieces of the given size. */
function pieces(bytes: Uint8Array, size: number): Uint8Array[] {
  const all: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += size) all.push(bytes.subarray(at, at + size));
  return all;
}

/** Framings of one call that has envelopes. */
function framings(): Record<string, Piece[]> {
  return {
    'nothing at all': [],
    'an empty message': [envelope(Uint8Array.of())],
    'in bytes': pieces(envelope(good()), 1).slice(0, 700),
    'in pieces of 1,000 bytes': pieces(envelope(request(middle).finish()), 1_000),
    'head and message apart': [envelope(good()).subarray(0, 5), good()],
    'half a head': [Uint8Array.of(0, 0)],
    'a head alone': [Uint8Array.of(0, 0, 0, 0, 9)],
    'half a message': [envelope(good()).subarray(0, 100)],
    'longer than allowed': [envelope(Uint8Array.of(1), 0, 96 * 1024 + 64 * 1024 + 1)],
    'longer than anything': [envelope(Uint8Array.of(1), 0, 0xffffffff)],
    'marked as compressed': [envelope(good(), 1)],
    'with flag 2': [envelope(good(), 2)],
    'with flag 4': [envelope(good(), 4)],
    'with flag 128': [envelope(good(), 128)],
    'with flags 3': [envelope(good(), 3)],
    'committed first, then plain': [envelope(Uint8Array.of(0x2a, 0x02, 0x08, 0x02)), envelope(good())],
    'committed too late': [envelope(good()), envelope(Uint8Array.of(0x2a, 0x02, 0x08, 0x02))],
    'committed, then noise': [
      envelope(Uint8Array.of(0x2a, 0x02, 0x08, 0x02)),
      envelope(good()),
      Uint8Array.of(1, 2, 3),
    ],
    'with noise after it': [Buffer.concat([envelope(good()), Uint8Array.of(1, 2, 3)])],
  };
}

const contentTypes = {
  unary: ['application/grpc', 'application/grpc+proto', 'application/grpc-web', 'application/grpc-web+proto'],
  stream: ['application/grpc+proto', 'application/grpc-web+proto', 'application/connect+proto'],
};

function messageCases(): Case[] {
  return [
    ...contentTypes.unary.flatMap(framedCases),
    ...bareCases('application/proto'),
    ...contentTypes.stream.flatMap(streamCases),
  ];
}

const unaryHeaders = (type: string): OutgoingHttpHeaders => ({
  ':path': unaryPath,
  'content-type': type,
  'user-agent': 'sluice-test/1.2.3',
});

/** Single calls whose message has an envelope. */
function framedCases(type: string): Case[] {
  const headers = unaryHeaders(type);
  const odd = Object.entries(oddMessages()).map(([name, bytes]) => ({ name, pieces: [envelope(bytes)] }));
  const framed = Object.entries(framings()).map(([name, pieces]) => ({ name, pieces }));
  const two = [envelope(good()), envelope(good())];
  return [
    ...odd,
    ...framed,
    { name: 'two messages', pieces: two },
    { name: 'two messages at once', pieces: [Buffer.concat(two)] },
  ].map(({ name, pieces }) => ({ name: `${type}: ${name}`, headers, pieces }));
}

/** Single calls whose body is the message. */
function bareCases(type: string): Case[] {
  const headers = unaryHeaders(type);
  const huge = Buffer.alloc(170_000);
  const one = good();
  const odd = Object.entries(oddMessages()).map(([name, bytes]) => ({ name, headers, pieces: [bytes] }));
  const ofStatedLength = (name: string, length: number, body: Uint8Array) => ({
    name,
    headers: { ...headers, 'content-length': length },
    pieces: [body],
  });
  return [
    ...odd,
    { name: 'nothing at all', headers, pieces: [] },
    { name: 'in bytes', headers, pieces: pieces(good(), 1).slice(0, 700) },
    { name: 'in pieces', headers, pieces: pieces(request(middle).finish(), 1_000) },
    { name: 'too long', headers, pieces: pieces(huge, 10_000) },
    ofStatedLength('too long, and says so', huge.length, huge),
    ...[0, -1, 1].map((more) => ofStatedLength(`says it is ${more} longer`, one.length + more, one)),
  ].map((of) => ({ ...of, name: `${type}: ${of.name}` }));
}

function streamCases(type: string): Case[] {
  const odd = Object.entries(oddMessages()).map(([name, bytes]) => ({ name, pieces: [envelope(bytes)] }));
  const framed = Object.entries(framings())
    .filter(([name]) => name !== 'with noise after it')
    .flatMap(([name, pieces]) => [
      { name, pieces },
      // What comes before the end of a chunk is answered here, and not by the library: two waits tell them apart.
      { name: `good, ${name}`, pieces: [envelope(good()), 2, ...pieces] },
    ]);
  const many = { name: 'many', pieces: [Buffer.concat(Array.from({ length: 40 }, () => envelope(good())))] };
  return [...odd, ...framed, many].map(({ name, pieces }) => ({
    name: `stream, ${type}: ${name}`,
    headers: { ':path': streamPath, 'content-type': type },
    pieces,
  }));
}

/** Headers that a call may have more than the plain one, or other than it. */
function oddHeaders(path: string): [string, OutgoingHttpHeaders][] {
  const keys = ['', 'Bearer nonsense', 'Basic abc', `Bearer slk_${'0'.repeat(12)}_${'a'.repeat(32)}`];
  const grpcTimeouts = ['5S', '1H', '0m', '0S', '900000u', '5', 'x', '-5S', '99999999H', '1000000000m', ''];
  const connectTimeouts = ['5000', '0', 'x', '-1', '9999999999', '99999999999', '5.5', ''];
  const types = [
    ...['application/json', 'application/grpc+json', 'application/grpc-web-text', 'text/plain', ''],
    ...['APPLICATION/GRPC', 'application/grpc; charset=utf-8', 'application/connectproto'],
    ...['application/proto', 'application/connect+proto', 'application/grpc+thrift'],
  ];
  const authorities = ['x:99999', 'a_b', '[::1]:80', '1.2.3.4.5', 'xn--', 'http://x'];
  const origins = ['https://shop.example', 'https://other.example', 'null', ''];
  const parents = ['00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00', 'nonsense'];
  return [
    ...keys.map((authorization): [string, OutgoingHttpHeaders] => [`key "${authorization}"`, { authorization }]),
    ['a key that is too long', { authorization: `Bearer ${'x'.repeat(400)}` }],
    ...each(grpcTimeouts, 'timeout', 'grpc-timeout'),
    ...each(connectTimeouts, 'timeout', 'connect-timeout-ms'),
    ...oddEncodings(),
    ...each(types, 'as', 'content-type'),
    ...['GET', 'PUT', 'OPTIONS', 'HEAD'].map((method): [string, OutgoingHttpHeaders] => [
      method,
      { ':method': method },
    ]),
    ['a query', { ':path': `${path}?a=b` }],
    ['a path with a slash', { ':path': `${path}/` }],
    ...each(authorities, 'authority', ':authority'),
    ...origins.flatMap((origin): [string, OutgoingHttpHeaders][] => [
      [`origin "${origin}"`, { origin }],
      [`origin "${origin}" and no key`, { origin, authorization: '' }],
    ]),
    ...each(parents, 'traceparent', 'traceparent'),
    ['a client', { 'x-user-agent': 'shop-web/2.0', 'user-agent': 'Mozilla/5.0' }],
    ['another client', { 'user-agent': 'no client at all' }],
    ['te', { te: 'trailers' }],
    ['a version', { 'connect-protocol-version': '2' }],
    ['a cookie', { cookie: 'a=b; c=d' }],
  ];
}

/** A header with each of these values. */
const each = (values: readonly string[], name: string, header: string): [string, OutgoingHttpHeaders][] =>
  values.map((value) => [`${name} ${value}`, { [header]: value }]);

function oddEncodings(): [string, OutgoingHttpHeaders][] {
  const encodings = ['gzip', 'identity', 'br', 'identity,gzip', 'deflate, gzip;q=1', '', 'nonsense'];
  return ['grpc', 'connect-content', 'content', 'connect'].flatMap((name) => {
    const accept = `${name === 'content' ? '' : `${name.split('-')[0]}-`}accept-encoding`;
    return encodings.flatMap((value): [string, OutgoingHttpHeaders][] => [
      [`${accept} ${value}`, { [accept]: value }],
      [`${name}-encoding ${value}`, { [`${name}-encoding`]: value }],
    ]);
  });
}

function headerCases(): Case[] {
  const routes = [
    ...[...contentTypes.unary, 'application/proto'].map((type) => ({ path: unaryPath, type })),
    ...contentTypes.stream.map((type) => ({ path: streamPath, type })),
  ];
  return routes.flatMap(({ path, type }) =>
    oddHeaders(path).map(([name, more]) => ({
      name: `${path} ${type}: ${name}`,
      headers: { ':path': path, 'content-type': type, ...more },
      pieces: [type === 'application/proto' ? good() : envelope(good())],
    })),
  );
}

function fuzzCases(count: number): Case[] {
  const all: Case[] = [];
  const types = [...contentTypes.unary.slice(1, 3), 'application/proto'];
  for (let i = 0; i < count; i++) {
    const type = types[i % types.length] as string;
    const bytes = Buffer.from(type === 'application/proto' ? good() : envelope(good()));
    // Into the head and the request's own fields more often than into the events.
    for (let flips = 1 + Math.floor(random() * 3); flips > 0; flips--) {
      const at = random() < 0.5 ? Math.floor(random() * 16) : bytes.length - 1 - Math.floor(random() * 16);
      bytes[at] = random() < 0.5 ? Math.floor(random() * 256) : (bytes[at] as number) ^ (1 << Math.floor(random() * 8));
    }
    const cut = random() < 0.2 ? bytes.subarray(0, Math.floor(random() * bytes.length)) : bytes;
    all.push({ name: `fuzz ${i}`, headers: { ':path': unaryPath, 'content-type': type }, pieces: [cut] });
  }
  for (let i = 0; i < count / 2; i++) {
    const type = contentTypes.stream[i % 3] as string;
    const bytes = Buffer.from(good());
    const at = random() < 0.5 ? Math.floor(random() * 12) : bytes.length - 1 - Math.floor(random() * 12);
    bytes[at] = Math.floor(random() * 256);
    const [first, second] = [envelope(bytes), envelope(good())];
    const headers = { ':path': streamPath, 'content-type': type };
    all.push({ name: `stream fuzz ${i}`, headers, pieces: random() < 0.5 ? [first] : [second, 2, first] });
  }
  return all;
}

/** An id that a gateway made up. */
const minted = /"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"/g;
/** Where the log has a batch: another place in another log. */
const place = /,?"(?:position|upTo)":\{[^}]*\}/g;
/** Waits are jittered, also inside of details. */
const plain = (json: JsonValue): string =>
  JSON.stringify(json).replace(minted, '"minted"').replace(place, ',"position"');

/** An answer without what differs between two logs and two moments. */
function normal(answer: BareAnswer, { headers, name }: Case): unknown {
  const { date: _date, ...rest } = answer.headers as Record<string, unknown>;
  const type = String(rest['content-type'] ?? '');
  const ok = rest[':status'] === 200;
  const schema = String(headers[':path']).startsWith(streamPath) ? PublishStreamResponseSchema : PublishResponseSchema;
  const decode = (bytes: Uint8Array): string =>
    plain(toJson(schema as typeof PublishResponseSchema, fromBinary(schema as typeof PublishResponseSchema, bytes)));
  let body: unknown = answer.body.toString('latin1');
  if (ok && type.endsWith('+proto')) {
    // Answers of a stream come in any order. A stream that ends with an error does not wait until its batches are committed.
    const chance = name.includes('then noise');
    body = envelopesOf(answer.body)
      .map(([flags, bytes]) => (flags === 0 ? decode(bytes) : `${flags} ${bytes.toString('latin1')}`))
      .filter((text) => !chance || !text.startsWith('{"committed"'))
      .sort();
  } else if (ok && type === 'application/proto') {
    assert.is(Number(rest['content-length']), answer.body.length);
    delete rest['content-length'];
    body = decode(answer.body);
  }
  const trailers = Object.entries(answer.trailers).sort();
  return { headers: Object.entries(rest).sort(), body, trailers, code: answer.code };
}

/** All that the log has, but for when it came and what the gateway made up. */
async function storedBatches({ nats }: RunningGateway): Promise<string[]> {
  const batches = (await stored(nats)).flatMap((message) => message.batches);
  return batches
    .map(({ receivedAt: _receivedAt, ...batch }) => plain(toJson(StoredBatchSchema, create(StoredBatchSchema, batch))))
    .sort();
}

/** Says again and again, in a worker's place, that ClickHouse has all that is in the log. */
function commitAll({ nats }: RunningGateway): () => Promise<void> {
  let stopped = false;
  const running = (async () => {
    const jsm = await jetstreamManager(nats.nc);
    while (!stopped) {
      for await (const info of jsm.streams.list('ev.>')) {
        const shard = Number(info.config.name.slice(3));
        const hint = { generation: generationOf(info), sequence: info.state.last_seq };
        nats.nc.publish(committedSubject(shard), JSON.stringify(hint));
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  })();
  return async () => {
    stopped = true;
    await running;
  };
}

/** Both gateways, with the same settings but for one, and each with a log of its own. */
async function withBoth(
  use: (
    hot: RunningGateway,
    library: RunningGateway,
    both: (call: Case) => Promise<[unknown, unknown]>,
  ) => Promise<void>,
): Promise<void> {
  await withGateway({ ...settings, hotPath: true }, (hot) =>
    withGateway({ ...settings, hotPath: false }, (library) =>
      withSession(hot.url, (first) =>
        withSession(library.url, async (second) => {
          const workers = [commitAll(hot), commitAll(library)];
          try {
            await use(hot, library, async (call) => {
              const withKey = ({ headers }: RunningGateway): BareCall => ({
                ...call,
                headers: { ...headers, ...call.headers },
              });
              const answers = await Promise.all([bareCall(first, withKey(hot)), bareCall(second, withKey(library))]);
              return [normal(answers[0], call), normal(answers[1], call)];
            });
          } finally {
            await Promise.all(workers.map((stop) => stop()));
          }
        }),
      ),
    ),
  );
}

for (const [name, cases] of [
  ['odd messages and framings', messageCases],
  ['odd headers', headerCases],
  ['broken bytes', () => fuzzCases(600)],
] as const) {
  test(`${name}: the hot path answers as the library does, and the log holds the same`, async () => {
    await withBoth(async (hot, library, both) => {
      const kinds = new Set<string>();
      const all = cases();
      // Some at a time: an answer that comes before the end of its request leaves its stream open for a while.
      for (let at = 0; at < all.length; at += 16) {
        await Promise.all(
          all.slice(at, at + 16).map(async (call) => {
            const [mine, theirs] = await both(call);
            assert.equal(mine, theirs, call.name);
            kinds.add(JSON.stringify(mine).replace(/\d+/g, '#').slice(0, 400));
          }),
        );
      }
      // Otherwise both may have refused everything alike.
      assert.ok(kinds.size > 12, `only ${kinds.size} kinds of answers`);
      const committed = [...kinds].filter((kind) => kind.includes('"committed')).length;
      assert.is(committed > 0, cases === messageCases, `${committed} answers that name ClickHouse`);
      const [inHot, inLibrary] = [await storedBatches(hot), await storedBatches(library)];
      assert.ok(inHot.length > 50, `only ${inHot.length} batches were stored`);
      assert.equal(inHot, inLibrary);
    });
  });
}

test.run();
