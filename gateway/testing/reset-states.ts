/**
 * Resets streams of a server in every state between `end()` and 'finish', and destroys stream or session before or after.
 * A program of its own, because Node spins in native code when it is done wrong: it prints `done` when it is not.
 */
import { connect, createServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { resetStream } from '../listener/reset-stream.js';

const large = Buffer.alloc(200_000, 1);
const none = (): void => {};

const answers: readonly ((stream: ServerHttp2Stream) => void)[] = [
  none,
  (stream) => stream.end(),
  (stream) => stream.end('answer'),
  (stream) => stream.end(large),
];
const endings: readonly ((stream: ServerHttp2Stream) => void)[] = [
  none,
  (stream) => stream.destroy(),
  (stream) => process.nextTick(() => stream.destroy()),
  (stream) => setImmediate(() => stream.session?.destroy()),
];
/** When the server acts: with the request open, within its last event, and afterwards. */
const moments: readonly ((stream: ServerHttp2Stream, act: () => void) => void)[] = [
  (stream, act) => stream.once('data', act),
  (stream, act) => stream.once('end', act),
  (stream, act) => stream.once('end', () => setTimeout(act, 5)),
];

/** One connection with two streams; the second one must not be harmed, unless its session is destroyed. */
async function play(port: number): Promise<void> {
  const session = connect(`http://127.0.0.1:${port}`);
  session.on('error', none);
  const streams = [0, 1].map((i) => {
    const stream = session.request({ ':method': 'POST' });
    stream.on('error', none);
    stream.resume();
    if (i === 0) stream.write('request');
    else stream.end('request');
    setTimeout(() => {
      if (!stream.destroyed) stream.end();
    }, 5);
    return new Promise((resolve) => stream.once('close', resolve));
  });
  await Promise.race([Promise.all(streams), new Promise((resolve) => setTimeout(resolve, 60))]);
  await new Promise(setImmediate);
  session.destroy();
}

for (const moment of moments) {
  for (const answer of answers) {
    for (const ending of endings) {
      const server = createServer();
      server.on('session', (session) => session.on('error', none));
      server.on('stream', (stream) => {
        stream.on('error', none);
        stream.respond();
        moment(stream, () => {
          answer(stream);
          resetStream(stream);
          ending(stream);
        });
        stream.resume();
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      await play((server.address() as AddressInfo).port);
      server.close();
    }
  }
}
process.stdout.write('done\n');
process.exit();
