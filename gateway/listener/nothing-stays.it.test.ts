/** Memory of calls that are over, measured on connections that stay, and of connections that are over. */
import { type ClientHttp2Session, connect, constants, type OutgoingHttpHeaders } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../../lib/testing/until.js';
import { frame, frameType, preface } from '../testing/raw-http2.js';
import { type RunningGateway, withGateway } from '../testing/running-gateway.js';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Of live objects. */
async function heapBytes(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    await pause(20);
    collect();
  }
  return process.memoryUsage().heapUsed;
}

interface Kind {
  readonly name: string;
  readonly headers: OutgoingHttpHeaders;
  /** Envelopes; the request ends after them when the call does. */
  readonly body: Buffer;
  /** The client resets the call after its first byte, or without one when it does not read. */
  readonly reset: boolean;
  readonly reads: boolean;
  /** The request ends before the reset. @default false */
  readonly ends?: boolean;
}

const envelope = (bytes: Buffer): Buffer => {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
};
const fileName = Buffer.from('sluice/event/v1/event.proto');
const question = envelope(Buffer.concat([Buffer.from([0x1a, fileName.length]), fileName]));
/** Their answers are more than node's buffer for a stream takes (16 KiB). */
const largestFile = Buffer.from('google/protobuf/descriptor.proto');
const largeQuestion = envelope(Buffer.concat([Buffer.from([0x1a, largestFile.length]), largestFile]));
const manyRefused = Buffer.concat(Array(99).fill(envelope(Buffer.from('{"unknown":1}'))));

function kinds(authorization: string): Kind[] {
  const grpc = (path: string, type = 'application/grpc'): OutgoingHttpHeaders => ({
    ':method': 'POST',
    ':path': path,
    'content-type': type,
    te: 'trailers',
    authorization,
  });
  const watch = grpc('/grpc.health.v1.Health/Watch');
  const reflection = grpc('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo');
  const hot = grpc('/sluice.ingest.v1.IngestService/PublishStream');
  const library = grpc('/sluice.ingest.v1.IngestService/PublishStream', 'application/grpc+json');
  const empty = envelope(Buffer.alloc(0));
  const read = { reset: true, reads: true };
  const unread = { reset: true, reads: false };
  return [
    { name: 'Check', headers: grpc('/grpc.health.v1.Health/Check'), body: empty, reset: false, reads: true },
    { name: 'reflection', headers: reflection, body: question, reset: false, reads: true },
    { name: 'reflection, reset', headers: reflection, body: question, ...read },
    { name: 'reflection, unread', headers: reflection, body: question, ...unread },
    { name: 'reflection, full', headers: reflection, body: Buffer.concat(Array(20).fill(largeQuestion)), ...unread },
    { name: 'Watch, reset', headers: watch, body: empty, ...read, ends: true },
    { name: 'Watch, unread', headers: watch, body: empty, ...unread, ends: true },
    { name: 'PublishStream, reset', headers: hot, body: empty, ...read },
    { name: 'PublishStream, unread', headers: hot, body: empty, ...unread },
    { name: 'PublishStream in JSON, reset', headers: library, body: envelope(Buffer.from('{}')), ...read },
    { name: 'PublishStream in JSON, unread', headers: library, body: envelope(Buffer.from('{}')), ...unread },
    { name: 'PublishStream in JSON, full', headers: library, body: manyRefused, ...unread },
  ];
}

async function call(session: ClientHttp2Session, { headers, body, reset, reads, ends = false }: Kind): Promise<void> {
  const stream = session.request(headers, { endStream: false });
  stream.on('error', () => {});
  const closed = new Promise<void>((resolve) => stream.once('close', resolve));
  if (!reset) {
    stream.resume();
    stream.end(body);
    return closed;
  }
  if (ends) stream.end(body);
  else stream.write(body);
  // The headers come although nothing of the answer is read.
  await new Promise((resolve) => stream.once(reads ? 'data' : 'response', resolve));
  // Until the answers stand at the window.
  if (body.length > 500) await pause(20);
  stream.close(constants.NGHTTP2_CANCEL);
  await closed;
}

/** Bytes of heap that stay of each of so many calls. */
async function kept({ url, gateway }: RunningGateway, kind: Kind, calls: number): Promise<number> {
  const session = connect(url, kind.reads ? {} : { settings: { initialWindowSize: 0 } });
  session.on('error', () => {});
  try {
    // Together fewer than the resets that end a connection (reset-budget.ts).
    for (let i = 0; i < 25; i++) await call(session, kind);
    const before = await heapBytes();
    for (let i = 0; i < calls; i++) await call(session, kind);
    await until('no call is open', () => gateway.requests === 0);
    return ((await heapBytes()) - before) / calls;
  } finally {
    session.destroy();
  }
}

test('nothing stays of a call that is over, on a connection that stays', async () => {
  await withGateway({}, async (running) => {
    for (const kind of kinds(running.headers.authorization)) {
      const bytes = await kept(running, kind, 65);
      // Sockets, metrics and node's own books move by about 1 kB a call; one listener or promise that stays holds tens of them.
      assert.ok(bytes < 4_000, `${kind.name}: ${Math.round(bytes)} bytes stay of each call`);
    }
  });
});

/**
 * Ends of HTTP/2 connections: a peer that goes away, and two whose frames are broken before: one that nghttp2 ends the session for, and
 * one that Node does. None of the peers acknowledges the gateway's settings.
 */
const ends: readonly [name: string, first: Buffer, last: Buffer][] = [
  ['gone', preface, Buffer.alloc(0)],
  ['broken', preface, frame(frameType.data, 0, 0, Buffer.from('x'))],
  ['invalid', preface, frame(frameType.reset, 0, 5, Buffer.alloc(4))],
];

test('nothing stays of a connection that is over', async () => {
  await withGateway({ newConnectionsPerAddress: 0 }, async ({ gateway, port }) => {
    const connectAndLeave = async (first: Buffer, last: Buffer): Promise<void> => {
      const socket = connectTcp(port, '127.0.0.1').on('error', () => {});
      socket.write(Buffer.concat([first, frame(frameType.settings, 0, 0)]));
      await Promise.race(['data', 'close'].map((event) => new Promise((resolve) => socket.once(event, resolve))));
      socket.end(last);
      await new Promise((resolve) => setImmediate(resolve));
      socket.destroy();
    };
    const several = async (first: Buffer, last: Buffer, count: number): Promise<number> => {
      for (let i = 0; i < count; i++) await connectAndLeave(first, last);
      await until('no connection is left', () => gateway.connections === 0, 10_000);
      // The gateway lets go of a session's socket half a second later.
      await pause(700);
      return heapBytes();
    };
    for (const [name, first, last] of ends) {
      const before = await several(first, last, 100);
      const bytes = ((await several(first, last, 200)) - before) / 200;
      assert.ok(bytes < 2_500, `${name}: ${Math.round(bytes)} bytes stay of each connection`);
    }
  });
});

test.run();
