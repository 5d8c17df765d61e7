import { once } from 'node:events';
import { connect, createServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { endWithBytes } from './last-write.js';

type End = (stream: ServerHttp2Stream, bytes: Buffer) => void;
/** Where Node's streams hear that a write is over. */
type Inner = { _writableState: { onwrite: (error?: Error | null) => void } };

/** @returns the answers, and how many reports of a write came to a stream that was closed */
async function serve(calls: number, end: End): Promise<{ answers: string[]; late: number }> {
  let late = 0;
  const server = createServer().listen(0, '127.0.0.1');
  server.on('stream', (stream: ServerHttp2Stream) => {
    const state = (stream as unknown as Inner)._writableState;
    const { onwrite } = state;
    state.onwrite = (error) => {
      if (stream.destroyed) late++;
      onwrite(error);
    };
    stream.resume();
    stream.on('end', () => {
      stream.respond({ ':status': 200 });
      end(stream, Buffer.from(`answer ${stream.id}`));
    });
  });
  await once(server, 'listening');
  const session = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  try {
    const answers = await Promise.all(
      Array.from({ length: calls }, async () => {
        const stream = session.request({ ':method': 'POST' });
        stream.end('request');
        let text = '';
        for await (const chunk of stream) text += String(chunk);
        return text;
      }),
    );
    return { answers, late };
  } finally {
    session.destroy();
    server.close();
  }
}

test('nothing is reported to a stream that has closed, and its bytes arrive', async () => {
  const plain = await serve(20, (stream, bytes) => stream.end(bytes));
  assert.ok(plain.late > 0, 'Node no longer reports a write to a closed stream: last-write.ts can go');
  const { answers, late } = await serve(20, endWithBytes);
  assert.is(late, 0);
  assert.equal(
    answers,
    Array.from({ length: 20 }, (_, i) => `answer ${2 * i + 1}`),
  );
});

test('a stream without a last message ends, too', async () => {
  const { answers } = await serve(3, (stream) => endWithBytes(stream, undefined));
  assert.equal(answers, ['', '', '']);
});

test.run();
