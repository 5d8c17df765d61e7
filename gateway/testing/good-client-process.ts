/** The process of good-client.ts: a call each 20 ms, on one connection. Told its port and key by arguments. */
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { create, toBinary } from '@bufbuild/protobuf';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createRandom, makeBatch } from '../../lib/testing/batches.js';
import type { SeenByClient } from './good-client.js';

const [, , port = '', key = ''] = process.argv;
const message = toBinary(
  PublishRequestSchema,
  create(PublishRequestSchema, { batch: makeBatch(createRandom(3), 3), attempt: 1 }),
);
const session = connectHttp2(`http://127.0.0.1:${port}`, {
  createConnection: () => connect({ port: Number(port), host: '127.0.0.1', localAddress: '127.0.0.2' }),
});
session.on('error', () => {});

const times: number[] = [];
const failures: string[] = [];
let open = 0;

function call(): void {
  const since = performance.now();
  open++;
  const stream = session.request({
    ':method': 'POST',
    ':path': '/sluice.ingest.v1.IngestService/Publish',
    'content-type': 'application/proto',
    authorization: `Bearer ${key}`,
  });
  let status: number | undefined;
  stream.on('response', (headers) => {
    status = headers[':status'];
    times.push(performance.now() - since);
  });
  stream.on('error', () => {});
  stream.on('close', () => {
    open--;
    if (status !== 200) failures.push(status === undefined ? `closed with code ${stream.rstCode}` : `status ${status}`);
  });
  stream.resume();
  stream.end(message);
}

session.once('connect', () => {
  const timer = setInterval(call, 20);
  process.send?.('begun');
  process.once('message', async () => {
    clearInterval(timer);
    for (let i = 0; i < 500 && open > 0; i++) await new Promise((resolve) => setTimeout(resolve, 20));
    times.sort((a, b) => a - b);
    const p99 = times[Math.floor(times.length * 0.99)] ?? Number.POSITIVE_INFINITY;
    const seen: SeenByClient = { calls: times.length, unanswered: open, failures: failures.slice(0, 3), p99 };
    process.send?.(seen);
  });
});
process.once('disconnect', () => process.exit(1));
