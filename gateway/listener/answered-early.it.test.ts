import { execFile, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import type { ClientHttp2Session, OutgoingHttpHeaders } from 'node:http2';
import { connect as connectHttp2, constants } from 'node:http2';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { silentLogger } from '../../lib/logger.js';
import { createRandom, makeBatch } from '../../lib/testing/batches.js';
import { buildGo } from '../../lib/testing/build-go.js';
import { makeCertificate } from '../../lib/testing/certificate.js';
import { GoMissing } from '../../lib/testing/go-missing.js';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { until } from '../../lib/testing/until.js';
import { bareCall, enveloped, withSession } from '../testing/bare-call.js';
import type { SeenEagerly } from '../testing/eager-client-process.js';
import { listening } from '../testing/listening.js';
import { onBothPaths, type RunningGateway } from '../testing/running-gateway.js';
import { listen } from './server.js';

const publishPath = '/sluice.ingest.v1.IngestService/Publish';
const request = toBinary(
  PublishRequestSchema,
  create(PublishRequestSchema, { batch: makeBatch(createRandom(3), 3), attempt: 1 }),
);

/** More than Node's compatibility API holds of a request. */
const part = Buffer.alloc(70_000);

interface Refused {
  readonly headers: OutgoingHttpHeaders;
  readonly part: Buffer;
  readonly status: number;
}

/** Calls that are answered before their end, which never comes. */
const refusedCalls = ({ headers }: RunningGateway): Refused[] => {
  const rpc = (type: string, authorization: string) => ({ ':path': publishPath, 'content-type': type, authorization });
  return [
    { headers: rpc('application/grpc', 'Bearer wrong'), part, status: 200 },
    { headers: rpc('application/grpc', headers.authorization), part: enveloped(part, 3_000_000), status: 200 },
    { headers: rpc('application/grpc-web', 'Bearer wrong'), part, status: 200 },
    { headers: rpc('application/proto', 'Bearer wrong'), part, status: 401 },
    {
      headers: { ...rpc('application/proto', headers.authorization), 'content-length': '3000000' },
      part,
      status: 400,
    },
    { headers: { ':path': '/v1/events/batch', authorization: 'Bearer wrong' }, part, status: 401 },
    { headers: { ':path': '/nothing/here' }, part, status: 404 },
  ];
};

/** Resolves with the status when the answer has ended. */
const leaveOpen = (session: ClientHttp2Session, { headers, part }: Refused): Promise<number> =>
  new Promise((resolve, reject) => {
    const stream = session.request({ ':method': 'POST', ...headers }, { endStream: false });
    let status = 0;
    stream.on('response', (answer) => {
      status = answer[':status'] ?? 0;
    });
    stream.on('error', reject);
    stream.on('end', () => resolve(status));
    stream.resume();
    stream.write(part);
  });

const validCall = async (session: ClientHttp2Session, { headers }: RunningGateway): Promise<void> => {
  const { trailers } = await bareCall(session, {
    headers: { ':path': publishPath, 'content-type': 'application/grpc', ...headers },
    pieces: [enveloped(request)],
  });
  assert.is(trailers['grpc-status'], '0');
};

onBothPaths(
  test,
  'a thousand refused calls leave no stream open, and their connection serves on',
  async (withGateway) => {
    // Else its connection ends for so many refusals (call-budget.ts).
    const trustedProxies = ['127.0.0.1'];
    await withGateway({ drainGrace: 10_000, trustedProxies }, async (running) => {
      const { gateway, url } = running;
      await withSession(url, async (session) => {
        const kinds = refusedCalls(running);
        for (let sent = 0; sent < 1_000; sent += 50) {
          const wave = Array.from({ length: 50 }, (_, i) => kinds[(sent + i) % kinds.length] as Refused);
          const answers = await Promise.all(wave.map((call) => leaveOpen(session, call)));
          assert.equal(
            answers,
            wave.map(({ status }) => status),
          );
        }
        await until('no stream is left', () => gateway.requests === 0, 1_000);
        // All of the connection's places can be taken.
        await Promise.all(Array.from({ length: 256 }, () => validCall(session, running)));
        assert.is(gateway.connections, 1);
        for (const call of kinds) await leaveOpen(session, call);
        const from = Date.now();
        await gateway.drain();
        assert.ok(Date.now() - from < 2_000, `the drain took ${Date.now() - from} ms`);
      });
    });
  },
);

onBothPaths(test, 'a client that does not read its refusals keeps no stream', async (withGateway) => {
  await withGateway({}, async (running) => {
    const session = connectHttp2(running.url, { settings: { initialWindowSize: 0 } });
    session.on('error', () => {});
    try {
      for (const { headers, part } of refusedCalls(running)) {
        const stream = session.request({ ':method': 'POST', ...headers }, { endStream: false });
        stream.on('error', () => {});
        stream.write(part);
      }
      await until('the calls have come', () => running.gateway.requests > 0);
      await until('no stream is left', () => running.gateway.requests === 0, 1_500);
    } finally {
      session.destroy();
    }
  });
});

onBothPaths(test, 'a refused call on HTTP/1.1 ends its connection, and leaves none behind', async (withGateway) => {
  await withGateway({}, async ({ gateway, port, headers }) => {
    const heads = [
      [`POST ${publishPath}`, 'content-type: application/proto', 'authorization: Bearer wrong'],
      [`POST ${publishPath}`, 'content-type: application/proto', `authorization: ${headers.authorization}`],
      ['POST /v1/events/batch', 'authorization: Bearer wrong'],
      ['POST /nothing/here'],
    ];
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, i) => {
        const [target, ...more] = heads[i % heads.length] as string[];
        const socket = connect(port, '127.0.0.1');
        socket.on('error', () => {});
        socket.write(`${[`${target} HTTP/1.1`, 'host: x', 'content-length: 10000000', ...more].join('\r\n')}\r\n\r\n`);
        socket.write(part);
        return new Promise<string>((resolve) => {
          let text = '';
          // Reads the answer, and keeps its own side open.
          socket.on('data', (chunk) => {
            text += String(chunk);
          });
          socket.on('end', () => resolve(text.slice(0, 12)));
        });
      }),
    );
    const expected = ['HTTP/1.1 401', 'HTTP/1.1 400', 'HTTP/1.1 401', 'HTTP/1.1 404'];
    assert.equal(
      answers,
      answers.map((_, i) => expected[i % 4]),
    );
    await until('no connection is left', () => gateway.connections === 0 && gateway.requests === 0, 1_000);
  });
});

test('a refusal reaches its client also when the gateway stands still for longer than the stream has to end', async () => {
  const server = await listen({
    host: '127.0.0.1',
    port: 0,
    maxConnections: 10,
    maxConnectionAge: 60_000,
    grace: 100,
    onRequest: (_request, response) => {
      // Timers that are due come before what such a callback has put off.
      setImmediate(() => {
        (response as ServerResponse).writeHead(401).end('no');
        const until = performance.now() + 150;
        while (performance.now() < until);
      });
    },
    logger: silentLogger,
  });
  try {
    await withSession(`http://127.0.0.1:${server.port}`, async (session) => {
      const refused = { headers: { ':path': '/' }, pieces: [part], open: true };
      // All in one turn, which takes 750 ms.
      const answers = await Promise.all(Array.from({ length: 5 }, () => bareCall(session, refused)));
      for (const { headers, body, code } of answers) {
        assert.equal([headers[':status'], String(body), code], [401, 'no', constants.NGHTTP2_NO_ERROR]);
      }
    });
  } finally {
    await server.drain('end of the test', 100);
  }
});

/** A client that takes each place again at once, and how its calls ended (testing/eager-client-process.ts). */
async function seenEagerly(port: number, calls: number, ...more: readonly string[]): Promise<SeenEagerly> {
  const file = programPath('gateway/testing/eager-client-process.ts');
  const child = fork(file, [String(port), String(calls), ...more], { execArgv: [...programFlags] });
  // Timers run between the turn in which answers are written, and the next read: the client reacts meanwhile.
  const busy = setInterval(() => {
    const until = performance.now() + 5;
    while (performance.now() < until);
  }, 1);
  try {
    return (await once(child, 'message'))[0] as SeenEagerly;
  } finally {
    clearInterval(busy);
    child.kill('SIGKILL');
  }
}

onBothPaths(
  test,
  'a client takes the place of each refused call at once, also when all places are taken and the gateway is busy',
  async (withGateway) => {
    await withGateway({ trustedProxies: ['127.0.0.1'] }, async ({ port, gateway }) => {
      assert.equal(await seenEagerly(port, 900), { answered: 900, faults: [] });
      assert.equal(await seenEagerly(port, 900, 'resets'), { answered: 900, faults: [] });
      await until('no stream is left', () => gateway.requests === 0, 1_000);
    });
  },
);

test('so it does over TLS', async () => {
  const server = await listen({
    ...listening,
    tls: makeCertificate(),
    onRequest: (_request, response) => void (response as ServerResponse).writeHead(401).end('no'),
    logger: silentLogger,
  });
  try {
    assert.equal(await seenEagerly(server.port, 900, 'tls'), { answered: 900, faults: [] });
  } finally {
    await server.drain('end of the test', 100);
  }
});

interface GoResult {
  readonly connections: number;
  readonly ends: Readonly<Record<string, { readonly codes: Readonly<Record<string, number>> }>>;
}

onBothPaths(test, 'grpc-go loses no valid call beside refused ones, nor its connection', async (withGateway) => {
  let program: string;
  try {
    program = await buildGo(new URL('../testing/refused-calls/', import.meta.url));
  } catch (error) {
    if (!(error instanceof GoMissing)) throw error;
    return void console.log(error.message);
  }
  const folder = await mkdtemp(join(tmpdir(), 'sluice-refused-'));
  try {
    const file = join(folder, 'request');
    await writeFile(file, request);
    await withGateway({}, async ({ gateway, port, key }) => {
      const { stdout } = await promisify(execFile)(
        program,
        ['--address', `127.0.0.1:${port}`, '--key', key, '--request', file],
        { timeout: 120_000 },
      );
      const { connections, ends } = JSON.parse(stdout) as GoResult;
      const codes = Object.fromEntries(Object.entries(ends).map(([kind, { codes }]) => [kind, codes]));
      assert.equal(codes, {
        valid: { OK: 1_000 },
        tooLarge: { InvalidArgument: 100 },
        wrongKey: { Unauthenticated: 100 },
        wrongKeyLarge: { Unauthenticated: 100 },
        wrongKeyOpen: { Unauthenticated: 100 },
      });
      assert.is(connections, 1);
      await until('no stream is left', () => gateway.requests === 0, 1_000);
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test.run();
