import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from '../../lib/errors.js';
import { silentLogger } from '../../lib/logger.js';
import { until } from '../../lib/testing/until.js';
import { listening } from '../testing/listening.js';
import { frame, frameType, header, preface } from '../testing/raw-http2.js';
import { type FrontServer, type FrontServerOptions, listen } from './server.js';

async function withServer(
  changes: Partial<FrontServerOptions>,
  use: (server: FrontServer) => Promise<void>,
): Promise<void> {
  const server = await listen({
    ...listening,
    onRequest: (request, response) => {
      request.resume();
      request.on('error', () => {});
      (response as import('node:http').ServerResponse).end(`HTTP/${request.httpVersion} ${request.url}`);
    },
    logger: silentLogger,
    ...changes,
  });
  try {
    await use(server);
  } finally {
    await server.drain('end of the test', 100);
    assert.is(server.connections, 0);
  }
}

const open = (port: number, bytes: string | Buffer): Promise<Socket> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.write(bytes);
      resolve(socket);
    });
    socket.on('error', () => {});
    socket.resume();
  });

async function http2Get(url: string, path: string, options: object = {}): Promise<string> {
  const session = connectHttp2(url, options);
  session.on('error', () => {});
  try {
    const stream = session.request({ ':path': path });
    let text = '';
    for await (const chunk of stream.setEncoding('utf8')) text += chunk;
    return text;
  } finally {
    session.close();
  }
}

test('one port takes HTTP/1.1 and HTTP/2, however the first bytes are cut', async () => {
  await withServer({}, async ({ port }) => {
    assert.is(await (await fetch(`http://127.0.0.1:${port}/a`)).text(), 'HTTP/1.1 /a');
    assert.is(await http2Get(`http://127.0.0.1:${port}`, '/b'), 'HTTP/2.0 /b');
    for (const text of [
      'GET /c HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n',
      'PUT /p HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n',
    ]) {
      const socket = await open(port, '');
      let answer = '';
      socket.on('data', (chunk) => {
        answer += String(chunk);
      });
      for (const letter of text) {
        socket.write(letter);
        await new Promise((resolve) => setImmediate(resolve));
      }
      await until('answered', () => answer.includes(`HTTP/1.1 /${text[5]}`));
    }
    const socket = await open(port, '');
    let bytes = 0;
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    for (const letter of preface.toString()) {
      socket.write(letter);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until("the server's settings", () => bytes > 9);
    socket.destroy();
  });
});

test('a broken frame, or a peer that is gone without a word, does not keep its connection', async () => {
  await withServer({ silenceTimeout: 150 }, async (server) => {
    const settings = Buffer.from('000000040000000000', 'hex');
    await open(server.port, Buffer.concat([preface, settings, Buffer.from('ffffff00ff7fffffff', 'hex')]));
    await open(server.port, preface);
    await until('connected', () => server.connections === 2);
    await until('let go', () => server.connections === 0, 3_000);
  });
});

test('a connection whose frames are broken is gone within 5 s, and one that is idle stays', async () => {
  // The call that waits for its body is never answered.
  const onRequest: FrontServerOptions['onRequest'] = (request) => void request.on('error', () => {});
  await withServer({ onRequest }, async (server) => {
    const idle = connectHttp2(`http://127.0.0.1:${server.port}`);
    idle.on('error', () => {});
    await once(idle, 'connect');
    const settings = Buffer.from('000000040000000000', 'hex');
    const call = frame(
      frameType.headers,
      4,
      1,
      Buffer.concat([
        header(':method', 'POST'),
        header(':scheme', 'http'),
        header(':path', '/x'),
        header(':authority', 'a'),
      ]),
    );
    const onStream0 = frame(frameType.data, 0, 0, Buffer.from('x'));
    const unreadable = frame(frameType.headers, 5, 1, Buffer.from('ffffffff', 'hex'));
    // The body of the call cannot come any more.
    for (const broken of [onStream0, unreadable, Buffer.concat([call, onStream0])]) {
      const socket = await open(server.port, Buffer.concat([preface, settings, broken]));
      socket.resume();
    }
    await until('connected', () => server.connections === 4);
    await until('let go', () => server.connections === 1, 5_000);
    assert.is(server.requests, 0);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    assert.is(server.connections, 1);
    idle.destroy();
  });
});

test('headers without end are refused', async () => {
  await withServer({}, async ({ port }) => {
    const socket = await open(port, `GET / HTTP/1.1\r\nhost: x\r\n${'x-a: y\r\n'.repeat(5_000)}`);
    let answer = '';
    socket.on('data', (chunk) => {
      answer += String(chunk);
    });
    await until('refused', () => answer.startsWith('HTTP/1.1 431'));
  });
});

test('an old connection is asked to end: GOAWAY on HTTP/2, connection: close on HTTP/1.1', async () => {
  await withServer({ maxConnectionAge: 300, grace: 300 }, async (server) => {
    const session = connectHttp2(`http://127.0.0.1:${server.port}`);
    let goaway = false;
    session.on('goaway', () => {
      goaway = true;
    });
    const socket = await open(server.port, '');
    let answers = '';
    socket.on('data', (chunk) => {
      answers += String(chunk);
    });
    const ask = setInterval(() => socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n'), 50);
    await until('goaway', () => goaway, 2_000);
    await until('close', () => /connection: close/i.test(answers), 2_000);
    clearInterval(ask);
    await until('gone', () => server.connections === 0, 2_000);
  });
});

test('an answer that comes before the end of the request arrives whole', async () => {
  const body = 'x'.repeat(100_000);
  await withServer(
    {
      onRequest: (_request, response) => {
        (response as import('node:http').ServerResponse).writeHead(413).end(body);
      },
    },
    async ({ port }) => {
      const socket = await open(port, 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n');
      let answer = '';
      let failed: Error | undefined;
      socket.on('error', (error) => {
        failed = error;
      });
      socket.on('data', (chunk) => {
        answer += String(chunk);
      });
      // Goes on sending all the while.
      const send = setInterval(() => socket.write(body), 5);
      await until('answered', () => answer.includes(body));
      clearInterval(send);
      assert.is(failed, undefined);
      assert.match(answer, /connection: close/i);
      socket.destroy();
    },
  );
});

test('with a certificate, TLS speaks both protocols by ALPN, and old TLS is refused', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'sluice-tls-'));
  try {
    const [keyFile, certFile] = [join(dir, 'key.pem'), join(dir, 'cert.pem')];
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-days',
        '2',
        '-subj',
        '/CN=localhost',
        '-keyout',
        keyFile,
        '-out',
        certFile,
      ],
      { stdio: 'ignore' },
    );
    const tls = { cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') };
    await withServer({ tls }, async ({ port }) => {
      const url = `https://localhost:${port}`;
      assert.is(
        await http2Get(url, '/two', { ca: tls.cert, host: '127.0.0.1', servername: 'localhost' }),
        'HTTP/2.0 /two',
      );
      const one = await new Promise<string>((resolve, reject) => {
        httpsRequest(
          { host: '127.0.0.1', servername: 'localhost', port, path: '/one', ca: tls.cert, agent: false },
          (response) => {
            let text = '';
            response.setEncoding('utf8').on('data', (chunk: string) => {
              text += chunk;
            });
            response.on('end', () => resolve(text));
          },
        )
          .on('error', reject)
          .end();
      });
      assert.is(one, 'HTTP/1.1 /one');
      // No TLS at all: closed, without effect on others.
      const plain = await open(port, 'GET / HTTP/1.1\r\n\r\n');
      await until('closed', () => plain.destroyed);
    });
    try {
      await listen({
        host: '127.0.0.1',
        port: 0,
        tls: { cert: 'no', key: 'no' },
        maxConnections: 1,
        maxConnectionAge: 1e6,
        grace: 1,
        onRequest() {},
        logger: silentLogger,
      });
      assert.unreachable();
    } catch (error) {
      assert.instance(error, UsageError);
      assert.match((error as Error).message, /--tls-cert/);
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

test('a port in use is reported with the way out', async () => {
  await withServer({}, async ({ port }) => {
    try {
      await withServer({ port }, async () => {});
      assert.unreachable();
    } catch (error) {
      assert.instance(error, UsageError);
      assert.match((error as Error).message, new RegExp(`Port ${port} .* in use.*--port`));
    }
  });
});

test('an HTTP/2 answer of known length ends with its last byte, and not in a frame after it', async () => {
  const get = Buffer.concat([
    header(':method', 'GET'),
    header(':scheme', 'http'),
    header(':path', '/x'),
    header(':authority', 'a'),
  ]);
  const onRequest: FrontServerOptions['onRequest'] = (request, response) => {
    request.resume();
    (response as import('node:http').ServerResponse).writeHead(200, { 'content-length': '5' }).end('hello');
  };
  await withServer({ onRequest }, async ({ port }) => {
    const socket = await open(port, Buffer.concat([preface, frame(4, 0, 0, Buffer.alloc(0)), frame(1, 5, 1, get)]));
    let bytes = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
    });
    await until('the body has come', () => bytes.includes('hello'));
    const head = bytes.subarray(bytes.indexOf('hello') - 9);
    assert.equal([head.readUIntBE(0, 3), head[3], head[4]], [5, 0, 1]);
    socket.destroy();
  });
});

test('a client that opens a stream and says good-bye with an error in the same breath does no harm', async () => {
  const headers = Buffer.concat([
    header(':method', 'POST'),
    header(':scheme', 'http'),
    header(':path', '/x'),
    header(':authority', 'a'),
  ]);
  const goAway = Buffer.alloc(8);
  goAway.writeUInt32BE(8, 4);
  const settings = frame(4, 0, 0, Buffer.alloc(0));
  const breath = Buffer.concat([preface, settings, frame(1, 4, 1, headers), frame(7, 0, 0, goAway)]);
  await withServer({}, async ({ port }) => {
    for (let i = 0; i < 20; i++) {
      const socket = await open(port, breath);
      // The server hangs up; an error without a listener would end this process.
      await new Promise((resolve) => socket.once('close', resolve));
    }
    assert.is(await http2Get(`http://127.0.0.1:${port}`, '/b'), 'HTTP/2.0 /b');
  });
});

test.run();
