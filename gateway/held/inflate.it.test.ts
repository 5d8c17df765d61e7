import { gzipSync } from 'node:zlib';
import { fromBinary } from '@bufbuild/protobuf';
import { createClient } from '@connectrpc/connect';
import { compressionGzip, createConnectTransport } from '@connectrpc/connect-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { IngestService, PublishResponseSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import { envelope } from '../api/hot/answers.js';
import { type BareAnswer, bareCall, withSession } from '../testing/bare-call.js';
import { onBothPaths } from '../testing/running-gateway.js';

const service = '/sluice.ingest.v1.IngestService';
/** Path, content type, header that names the compression, whether messages are in envelopes. */
const routes: readonly (readonly [string, string, string, boolean])[] = [
  ['/v1/events', 'application/json', 'content-encoding', false],
  ['/v1/events/batch', 'application/json', 'content-encoding', false],
  [`${service}/Publish`, 'application/json', 'content-encoding', false],
  [`${service}/Publish`, 'application/proto', 'content-encoding', false],
  [`${service}/PublishStream`, 'application/connect+json', 'connect-content-encoding', true],
  [`${service}/PublishStream`, 'application/connect+proto', 'connect-content-encoding', true],
  ...['Publish', 'PublishStream'].flatMap((method) =>
    ['grpc', 'grpc+json', 'grpc-web', 'grpc-web+json'].map(
      (type) => [`${service}/${method}`, `application/${type}`, 'grpc-encoding', true] as const,
    ),
  ),
];

const refusal = /inflate to more than \d+ bytes/;
/** gRPC-Web has its trailers in the body. */
const told = ({ body, trailers }: BareAnswer): string => `${body} ${trailers['grpc-message']}`.replaceAll('%20', ' ');

onBothPaths(test, 'a bomb is refused on every path that inflates, alone and in small pieces', async (withGateway) => {
  await withGateway({}, async ({ url, headers }) => {
    const large = gzipSync(Buffer.alloc(1_000_000));
    // As Protobuf a batch that is none, as JSON no message: both are refused alone, and the stream goes on.
    const small = gzipSync(Buffer.concat([Buffer.of(0x0a, 0x80, 0x80, 0x0c), Buffer.alloc(196_608)]));
    await withSession(url, async (session) => {
      for (const [path, type, encoding, enveloped] of routes) {
        const name = `${path} ${type}`;
        const call = { ':path': path, 'content-type': type, [encoding]: 'gzip', ...headers };
        const whole = await bareCall(session, { headers: call, pieces: [enveloped ? envelope(1, large) : large] });
        assert.match(told(whole), refusal, name);
        assert.match(told(whole), /A call may inflate to 256 KiB/, name);
        if (!path.endsWith('Stream')) continue;
        const many = Array.from({ length: 1_000 }, () => envelope(1, small));
        const pieces = await bareCall(session, { headers: call, pieces: [Buffer.concat(many)] });
        assert.match(told(pieces), refusal, `${name}, in pieces`);
      }
    });
  });
});

onBothPaths(
  test,
  'batches that compress well are taken: real ones 20 times, 10,000 alike 29 times',
  async (withGateway) => {
    await withGateway({}, async ({ url, headers }) => {
      const alike = Array.from({ length: 10_000 }, (_, i) => ({
        eventId: `e-${i}`,
        type: 'EVENT_TYPE_CLICK',
        occurredAt: '2026-01-31T12:00:00Z',
      }));
      const body = gzipSync(JSON.stringify({ events: alike }));
      const answer = await fetch(`${url}/v1/events/batch`, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json', 'content-encoding': 'gzip' },
        body,
      });
      assert.is(answer.status, 202);
      assert.is(((await answer.json()) as { accepted: number }).accepted, 10_000);
      for (const useBinaryFormat of [true, false]) {
        const transport = createConnectTransport({
          baseUrl: url,
          httpVersion: '2',
          useBinaryFormat,
          sendCompression: compressionGzip,
          compressMinBytes: 0,
        });
        const client = createClient(IngestService, transport);
        const { result } = await client.publish({ batch: makeBatch(createRandom(4), 2_000) }, { headers });
        assert.is(result?.accepted, 2_000);
      }
    });
  },
);

onBothPaths(test, 'a GET inflates its message, and not beyond the size of a question', async (withGateway) => {
  await withGateway({}, async ({ url, headers }) => {
    const get = (message: Uint8Array) =>
      fetch(
        `${url}${service}/GetLimits?connect=v1&encoding=json&compression=gzip&base64=1&message=${Buffer.from(message).toString('base64url')}`,
        { headers },
      );
    assert.is((await get(gzipSync('{}'))).status, 200);
    const refused = await get(gzipSync(`{${' '.repeat(1_000_000)}}`));
    assert.is(refused.status, 400);
    assert.match(await refused.text(), /too large/);
  });
});

onBothPaths(test, 'a request of very many fields is refused before any becomes an object', async (withGateway) => {
  await withGateway({}, async ({ url, headers }) => {
    const call = { ':path': `${service}/Publish`, 'content-type': 'application/proto', ...headers };
    // A part of a batch, a batch_id, a time, an empty group.
    const fields = [Buffer.of(0x0a, 0), Buffer.of(0x12, 0), Buffer.of(0x22, 0), Buffer.of(0x4b, 0x4c)];
    await withSession(url, async (session) => {
      for (const field of fields) {
        const { body } = await bareCall(session, { headers: call, pieces: [Buffer.alloc(1_000_000, field)] });
        assert.match(body.toString(), /more than 20000 fields outside of its events/, field.toString('hex'));
      }
    });
  });
});

onBothPaths(test, 'a batch in many parts is one batch', async (withGateway) => {
  await withGateway({}, async ({ url, headers }) => {
    const part = (): Buffer => {
      const event = encodeBatch(makeBatch(createRandom(6), 1));
      return Buffer.concat([Buffer.of(0x0a, 0x80 | (event.length & 0x7f), event.length >> 7), event]);
    };
    const response = await fetch(`${url}${service}/Publish`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/proto' },
      body: Buffer.concat(Array.from({ length: 3_000 }, part)),
    });
    const { result } = fromBinary(PublishResponseSchema, new Uint8Array(await response.arrayBuffer()));
    assert.is(result?.accepted, 3_000);
  });
});

test.run();
