/** What a real HTTP/2 client hears of its windows, and what it gains by them. */
import { connect } from 'node:http2';
import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishStreamRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createRandom, makeBatch } from '../../lib/testing/batches.js';
import { enveloped } from '../testing/bare-call.js';
import { withGatewayProcess } from '../testing/gateway-process.js';
import { narrowWindow, wideWindow } from './stream-windows.js';

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test('a stream that brings much gets a wide window, and many streams on its connection end that', async () => {
  await withGatewayProcess([], ['acme'], async (gateway) => {
    const session = connect(gateway.url);
    const windows: (number | undefined)[] = [];
    session.on('remoteSettings', ({ initialWindowSize }) => windows.push(initialWindowSize));
    const open = () => {
      const stream = session.request({
        ':method': 'POST',
        ':path': '/sluice.ingest.v1.IngestService/PublishStream',
        'content-type': 'application/grpc+proto',
        authorization: `Bearer ${gateway.keys[0]}`,
      });
      stream.on('error', () => {});
      stream.resume();
      return stream;
    };
    try {
      const busy = open();
      const random = createRandom(7);
      for (let i = 0; i < 100 && windows.length < 2; i++) {
        const message = create(PublishStreamRequestSchema, { batch: makeBatch(random, 400), attempt: 1 });
        busy.write(enveloped(toBinary(PublishStreamRequestSchema, message)));
        await wait(50);
      }
      assert.equal(windows, [narrowWindow, wideWindow]);
      const others = Array.from({ length: 20 }, open);
      for (let i = 0; i < 100 && windows.length < 3; i++) await wait(50);
      assert.equal(windows, [narrowWindow, wideWindow, narrowWindow]);
      for (const stream of others) stream.close();
    } finally {
      session.destroy();
    }
  });
});

test.run();
