/**
 * Streams of the client that end in every order: the server ends its answer early, late or with a reset, while the client sends, has
 * finished, or gives up. A program of its own, because Node spins in native code when an HTTP/2 stream is ended wrongly: it prints
 * `done` when it is not.
 */
import { constants, createServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { systemClock } from '../clock.js';
import type { Link } from '../delivery.js';
import { openIngestStream } from '../ingest-stream.js';

const large = new Uint8Array(300_000);
const small = new Uint8Array(3);
const none = (): void => {};
const settle = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** When the server has ended its answer, the client may not have ended its request. */
const answers: readonly ((stream: ServerHttp2Stream) => void)[] = [
  (stream) => stream.end(),
  (stream) => stream.once('data', () => stream.end()),
  (stream) => stream.once('end', () => stream.end()),
  (stream) => setTimeout(() => stream.end(), 5),
  (stream) => setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), 5),
  (stream) => stream.once('data', () => setImmediate(() => stream.session?.destroy())),
];
const clients: readonly ((link: Link) => void)[] = [
  none,
  (link) => link.finish(30),
  (link) => setTimeout(() => link.finish(30), 5),
  (link) => link.abort(),
  (link) => setTimeout(() => link.abort(), 5),
  (link) => {
    link.finish(30);
    setTimeout(() => link.abort(), 4);
  },
];

for (const answer of answers) {
  for (const client of clients) {
    for (const bytes of [small, large]) {
      const server = createServer();
      server.on('session', (session) => session.on('error', none));
      server.on('stream', (stream) => {
        stream.on('error', none);
        stream.respond({ ':status': 200, 'content-type': 'application/grpc+proto' }, { waitForTrailers: true });
        stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
        stream.resume();
        answer(stream);
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as AddressInfo;
      const ended = new Promise<void>((resolve) => {
        const link = openIngestStream(
          {
            baseUrl: `http://127.0.0.1:${port}`,
            key: 'k',
            userAgent: 'test',
            durability: 'accepted',
            clock: systemClock,
          },
          {
            onLimits: none,
            onAccepted: none,
            onFailed: none,
            onCommitted: none,
            onDraining: none,
            onEnd: () => {
              // Within the event: what a client does that opens the next stream.
              link.abort();
              resolve();
            },
          },
        );
        for (const batchId of ['a', 'b', 'c']) link.send({ batchId, bytes, attempt: 1 });
        client(link);
        setTimeout(() => {
          link.abort();
          resolve();
        }, 60);
      });
      await ended;
      await settle(5);
      server.close();
    }
  }
}
process.stdout.write('done\n');
process.exit();
