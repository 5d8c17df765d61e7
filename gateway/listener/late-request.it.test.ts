/** Slow requests over HTTP/1.1, with a second in the place of the minute that they have. */
import type { ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { until } from '../../lib/testing/until.js';
import { listening } from '../testing/listening.js';
import { createWatchedPeer } from '../testing/watched-peer.js';
import type { NodeRequest, NodeResponse } from './node-request.js';
import { listen } from './server.js';

/** Reads the body, and says how many bytes it had. */
function count(request: NodeRequest, response: NodeResponse): void {
  let bytes = 0;
  request.on('error', () => {});
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  request.on('end', () => (response as ServerResponse).end(`${bytes} bytes.`));
  request.resume();
}

/** Sends a body in parts, one each 100 ms. @returns what is answered, and when, ms */
async function sendSlowly(port: number, parts: readonly number[]): Promise<{ text: string; ms: number }> {
  const socket = connect(port, '127.0.0.1');
  const since = performance.now();
  const { text, closed } = createWatchedPeer(socket);
  const size = parts.reduce((sum, part) => sum + part, 0);
  socket.write(`POST / HTTP/1.1\r\nhost: x\r\ncontent-length: ${size}\r\n\r\n`);
  for (const part of parts) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    if (closed() || text() !== '') break;
    socket.write(Buffer.alloc(part));
  }
  await until('an answer', () => text() !== '' || closed());
  socket.destroy();
  return { text: text(), ms: performance.now() - since };
}

test('a body that flows may take longer than a request has, and one that drips may not', async () => {
  const server = await listen({ ...listening, requestTimeout: 1_000, onRequest: count, logger: silentLogger });
  try {
    const times = (count: number, part: number): number[] => Array<number>(count).fill(part);
    const [flows, drips, begins, next] = await Promise.all([
      sendSlowly(server.port, times(40, 1024)),
      sendSlowly(server.port, times(40, 20)),
      // Much at first earns no more time than the present period.
      sendSlowly(server.port, [1024 ** 2, ...times(60, 20)]),
      sendSlowly(server.port, times(2, 20)),
    ]);
    assert.match(flows.text, '40960 bytes.');
    assert.ok(flows.ms > 3_500);
    assert.match(drips.text, /^HTTP\/1\.1 408 /);
    assert.ok(drips.ms < 3_000, `${drips.ms} ms`);
    assert.match(begins.text, /^HTTP\/1\.1 408 /);
    assert.match(begins.text, 'request_timeout');
    assert.match(next.text, '40 bytes.');
  } finally {
    await server.drain('end of the test', 100);
  }
});

test('time in which the gateway does not read a body is not its client’s', async () => {
  const server = await listen({
    ...listening,
    requestTimeout: 500,
    onRequest: (request, response) => {
      request.pause();
      setTimeout(count, 2_500, request, response);
    },
    logger: silentLogger,
  });
  try {
    const { text } = await sendSlowly(server.port, [100, 100]);
    assert.match(text, '200 bytes.');
    // More than the buffers on the way hold, so that the rest comes when the gateway reads.
    const large = await sendSlowly(server.port, [16 * 1024 ** 2]);
    assert.match(large.text, `${16 * 1024 ** 2} bytes.`);
  } finally {
    await server.drain('end of the test', 100);
  }
});

test.run();
