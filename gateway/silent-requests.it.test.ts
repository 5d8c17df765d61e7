/** Requests of which no byte comes any more, on both paths at once: each waits for the 15 s that it has. */
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createRandom, makeBatch } from '../lib/testing/batches.js';
import { until } from '../lib/testing/until.js';
import { enveloped } from './testing/bare-call.js';
import { type RunningGateway, withGateway } from './testing/running-gateway.js';

const service = '/sluice.ingest.v1.IngestService/';
const message = toBinary(
  PublishRequestSchema,
  create(PublishRequestSchema, { batch: makeBatch(createRandom(3), 3), attempt: 1 }),
);

async function sendAndFallSilent({ gateway, url, port, headers }: RunningGateway): Promise<void> {
  const session = connectHttp2(url).on('error', () => {});
  const ends = new Map<string, string>();
  const open = (name: string, path: string, type: string, bytes: Uint8Array): void => {
    const stream = session.request(
      { ':method': 'POST', ':path': path, 'content-type': type, ...headers },
      { endStream: false },
    );
    let text = '';
    stream.on('response', (answer) => {
      text += `${answer[':status']} `;
    });
    stream.on('trailers', (trailers) => {
      text += `${trailers['grpc-status']} ${trailers['grpc-message']}`;
    });
    stream.on('data', (chunk) => {
      text += String(chunk);
    });
    stream.on('error', () => {});
    stream.on('close', () => ends.set(name, text));
    if (bytes.length > 0) stream.write(bytes);
  };
  open('nothing', `${service}Publish`, 'application/grpc', Buffer.alloc(0));
  open('a part', `${service}Publish`, 'application/grpc', enveloped(message, 1_000_000));
  open('all but the end', `${service}Publish`, 'application/grpc', enveloped(message));
  open('a part, Connect', `${service}Publish`, 'application/proto', message);
  open('a part of a stream', `${service}PublishStream`, 'application/grpc', enveloped(message, 1_000_000));
  open('a part of JSON', '/v1/events/batch', 'application/json', Buffer.from('{"events":['));
  open('a stream between messages', `${service}PublishStream`, 'application/grpc', enveloped(message));
  const socket = connect(port, '127.0.0.1').on('error', () => {});
  socket.write(
    `POST /v1/events/batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\nauthorization: ${headers.authorization}\r\n\r\n{`,
  );
  socket.on('data', (chunk) => ends.set('HTTP/1.1', String(chunk)));
  try {
    await until('all but one have ended', () => ends.size >= 7, 25_000);
    for (const [name, text] of ends) assert.match(text, /No byte of the request came for 15 s/, name);
    assert.not(ends.has('a stream between messages'));
    await until('one is left', () => gateway.requests === 1);
  } finally {
    session.destroy();
    socket.destroy();
  }
}

test('a request that falls silent ends after 15 s with an error that says so, and a stream between messages does not', async () => {
  await Promise.all([true, false].map((hotPath) => withGateway({ hotPath }, sendAndFallSilent)));
});

test.run();
