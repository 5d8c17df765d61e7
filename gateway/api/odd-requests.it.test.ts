/** Requests that are legal but seldom, or wrong in a way that deserves a clear answer: other spellings, grpc-web-text, too many headers. */
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { gzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import { bareCall, envelopesOf, withSession } from '../testing/bare-call.js';
import { stored } from '../testing/ingest.js';
import { onBothPaths, type RunningGateway } from '../testing/running-gateway.js';

const service = '/sluice.ingest.v1.IngestService';
const publishPath = `${service}/Publish`;
const batch = encodeBatch(makeBatch(createRandom(5), 3));
const json = (id: string) =>
  JSON.stringify({ eventId: id, type: 'EVENT_TYPE_CLICK', occurredAt: '2026-01-31T12:00:00Z' });

/** PublishRequest: the batch, then its id. */
function request(batchId: string): Buffer {
  const head = Buffer.from([0x0a, (batch.length & 0x7f) | 0x80, batch.length >> 7]);
  return Buffer.concat([head, batch, Buffer.from([0x12, batchId.length]), Buffer.from(batchId)]);
}

function framed(message: Uint8Array, flags = 0): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

async function storedIds({ nats }: RunningGateway): Promise<string[]> {
  return (await stored(nats)).flatMap(({ batches }) => batches.map(({ batchId }) => batchId)).sort();
}

/** Says this on a plain socket, and returns all that comes back until it closes, or until `enough`. */
function raw(port: number, text: string, enough?: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    let answer = '';
    socket.setTimeout(5_000, () => socket.destroy(new Error(`no more after: ${answer}`)));
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1');
      if (enough?.test(answer)) socket.destroy();
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(answer));
  });
}

/** Padded base64 texts one after another, as a client may send and the gateway answers. */
const decodeText = (text: string): Buffer =>
  Buffer.concat((text.match(/[^=]+={0,2}/g) ?? []).map((part) => Buffer.from(part, 'base64')));

onBothPaths(test, 'grpc-web-text is served over both HTTP versions, however its base64 is cut', async (withGateway) => {
  await withGateway({}, async (running) => {
    const { url, headers } = running;
    const post = (body: string, type = 'application/grpc-web-text') =>
      fetch(`${url}${publishPath}`, { method: 'POST', headers: { ...headers, 'content-type': type }, body });
    const whole = framed(request('whole'));
    const good = await post(whole.toString('base64'));
    assert.is(good.status, 200);
    assert.is(good.headers.get('content-type'), 'application/grpc-web-text+proto');
    const [[flags], [last, trailers]] = envelopesOf(decodeText(await good.text())) as [
      [number, Buffer],
      [number, Buffer],
    ];
    assert.equal([flags, last], [0, 0x80]);
    assert.match(trailers.toString(), /grpc-status: 0/);

    // Two texts, each with its own padding, in frames that end in the middle of a group.
    const two = framed(request('two'));
    const text = two.subarray(0, 7).toString('base64') + two.subarray(7).toString('base64');
    await withSession(url, async (session) => {
      const pieces = [text.slice(0, 3), text.slice(3, 14), text.slice(14)].map((part) => Buffer.from(part));
      const answer = await bareCall(session, {
        headers: { ...headers, ':path': publishPath, 'content-type': 'application/grpc-web-text+proto' },
        pieces,
      });
      assert.match(decodeText(answer.body.toString()).toString('latin1'), /grpc-status: 0/);
      const stream = framed(request('streamed')).toString('base64');
      const streamed = await bareCall(session, {
        headers: { ...headers, ':path': `${publishPath}Stream`, 'content-type': 'application/grpc-web-text' },
        pieces: [Buffer.from(stream)],
      });
      const parts = envelopesOf(decodeText(streamed.body.toString()));
      assert.is(parts.length, 3, 'limits, the answer, the end');
    });

    for (const bad of ['****', whole.toString('base64').slice(0, -1), '====', 'A'.repeat(4_001)]) {
      const refused = decodeText(await (await post(bad)).text()).toString('latin1');
      assert.match(refused, /grpc-status: 3/, bad.slice(0, 20));
    }
    assert.equal(await storedIds(running), ['streamed', 'two', 'whole']);
  });
});

onBothPaths(test, 'names in headers are understood in other spellings', async (withGateway) => {
  await withGateway({}, async (running) => {
    const { url, headers } = running;
    const expected: string[] = [];
    await withSession(url, async (session) => {
      const types = [
        'application/grpc;charset=utf-8',
        'Application/GRPC+Proto; charset=UTF-8',
        'application/grpc ; foo=bar',
      ];
      for (const [i, type] of types.entries()) {
        expected.push(`grpc-${i}`);
        const { trailers } = await bareCall(session, {
          headers: { ...headers, ':path': publishPath, 'content-type': type },
          pieces: [framed(request(`grpc-${i}`))],
        });
        assert.is(trailers['grpc-status'], '0', type);
      }
      for (const encoding of ['GZIP', 'x-gzip']) {
        expected.push(`packed-${encoding}`);
        const { trailers } = await bareCall(session, {
          headers: { ...headers, ':path': publishPath, 'content-type': 'application/grpc', 'grpc-encoding': encoding },
          pieces: [framed(gzipSync(request(`packed-${encoding}`)), 1)],
        });
        assert.is(trailers['grpc-status'], '0', encoding);
      }
    });
    for (const encoding of ['GZIP', 'X-Gzip']) {
      const more = { 'content-encoding': encoding, 'content-type': 'application/json; charset="utf-8"' };
      const body = JSON.stringify({ batchId: encoding, batch: { events: [JSON.parse(json(encoding))] } });
      for (const [path, text] of [
        ['/v1/events', json('e')],
        [publishPath, body],
      ] as const) {
        const answer = await fetch(`${url}${path}`, {
          method: 'POST',
          headers: { ...headers, ...more, 'idempotency-key': `${encoding}-http` },
          body: gzipSync(text),
        });
        assert.ok(answer.ok, `${path} ${encoding}: ${answer.status} ${await answer.text()}`);
      }
      expected.push(encoding, `${encoding}-http`);
    }
    assert.equal(await storedIds(running), expected.sort());
  });
});

onBothPaths(
  test,
  'refusals carry the headers that HTTP wants, and a body that says what to do',
  async (withGateway) => {
    await withGateway({}, async ({ url, headers }) => {
      const ask = async (path: string, init: RequestInit) => {
        const answer = await fetch(`${url}${path}`, init);
        const body = (await answer.json()) as { error?: { code: string; message: string; fix: string }; code?: string };
        return { status: answer.status, header: (name: string) => answer.headers.get(name), body };
      };
      const post = (more: Record<string, string>, body = '') => ({
        method: 'POST',
        headers: { ...headers, ...more },
        body,
      });
      const type = await ask(publishPath, post({ 'content-type': 'text/plain' }));
      assert.equal([type.status, type.body.error?.code], [415, 'media_type']);
      assert.match(type.header('accept-post') ?? '', /application\/grpc-web-text/);
      const method = await ask(publishPath, { method: 'PUT', headers });
      assert.equal(
        [method.status, method.header('allow'), method.body.error?.code],
        [405, 'POST, OPTIONS', 'method_not_allowed'],
      );
      const question = await ask(`${service}/GetLimits`, { method: 'DELETE', headers });
      assert.equal([question.status, question.header('allow')], [405, 'POST, GET, OPTIONS']);
      // Without an Origin it is no preflight.
      for (const [path, allow] of [
        ['/v1/events', 'POST, OPTIONS'],
        ['/v1/events/batch', 'POST, OPTIONS'],
        ['/readyz', 'GET, HEAD, OPTIONS'],
        [publishPath, 'POST, OPTIONS'],
        [`${service}/GetLimits`, 'POST, GET, OPTIONS'],
      ] as const) {
        const options = await fetch(`${url}${path}`, { method: 'OPTIONS' });
        assert.equal([options.status, options.headers.get('allow'), await options.text()], [204, allow, ''], path);
      }
      for (const query of ['', '?connect=v1', '?encoding=xml&message=%7B%7D']) {
        const noQuery = await ask(`${service}/GetLimits${query}`, { headers });
        assert.equal([noQuery.status, noQuery.body.error?.code], [400, 'request_malformed']);
        const [example = ''] =
          /\?connect=v1&encoding=json&message=%7B%7D/.exec(noQuery.body.error?.message ?? '') ?? [];
        assert.is((await fetch(`${url}${service}/GetLimits${example}`, { headers })).status, 200);
      }
      const version = await ask(`${publishPath}Stream`, post({ 'content-type': 'application/connect+proto' }));
      assert.equal([version.status, version.body.error?.code], [505, 'http_version']);
      const encoding = await ask('/v1/events', post({ 'content-type': 'application/json', 'content-encoding': 'br' }));
      assert.equal([encoding.status, encoding.body.error?.code], [415, 'content_encoding']);
      assert.is(encoding.header('accept-encoding'), 'gzip, identity');
      for (const [path, contentType] of [
        ['/v1/events', 'application/json'],
        [publishPath, 'application/json'],
        [publishPath, 'application/proto'],
        [`${service}/GetLimits`, 'application/json'],
      ] as const) {
        for (const authorization of ['Bearer no', '']) {
          const unknown = await ask(path, {
            method: 'POST',
            headers: { authorization, 'content-type': contentType },
            body: '{}',
          });
          assert.equal([unknown.status, unknown.header('www-authenticate')], [401, 'Bearer realm="sluice"'], path);
        }
      }
      await withSession(url, async (session) => {
        const call = {
          headers: { ...headers, ':path': publishPath, 'content-type': 'application/proto' },
          pieces: [Buffer.from('x')],
        };
        const unknown = await bareCall(session, { ...call, headers: { ...call.headers, authorization: 'Bearer no' } });
        assert.is(unknown.headers['www-authenticate'], 'Bearer realm="sluice"');
        const deflate = await bareCall(session, {
          headers: { ...call.headers, 'content-type': 'application/grpc', 'grpc-encoding': 'deflate' },
          pieces: [framed(Buffer.from('x'), 1)],
        });
        assert.equal([deflate.trailers['grpc-status'], deflate.headers['grpc-accept-encoding']], ['12', 'gzip']);
      });
    });
  },
);

onBothPaths(
  test,
  'bytes that are broken in any layer are refused by name, as the fault of the caller',
  async (withGateway) => {
    await withGateway({}, async ({ url, headers }) => {
      const cut = gzipSync(request('cut')).subarray(0, -6);
      await withSession(url, async (session) => {
        const cases: [Record<string, string>, Buffer, status: string, name: string][] = [
          [{ 'grpc-encoding': 'gzip' }, framed(cut, 1), '3', 'request_malformed'],
          [{ 'grpc-encoding': 'deflate' }, framed(cut, 1), '12', 'content_encoding'],
          [{}, framed(cut, 1), '13', 'request_malformed'],
          [{}, framed(request('short')).subarray(0, -1), '3', 'request_malformed'],
          [{}, Buffer.concat([framed(request('a')), framed(request('b'))]), '3', 'request_malformed'],
          [{}, Buffer.alloc(0), '3', 'request_malformed'],
          [{ 'grpc-timeout': '1x' }, framed(request('time')), '3', 'request_malformed'],
        ];
        for (const [more, bytes, status, name] of cases) {
          const { trailers } = await bareCall(session, {
            headers: { ...headers, ':path': publishPath, 'content-type': 'application/grpc', ...more },
            pieces: [bytes],
          });
          const details = Buffer.from(String(trailers['grpc-status-details-bin'] ?? ''), 'base64').toString('latin1');
          assert.is(trailers['grpc-status'], status, JSON.stringify(more));
          assert.match(details, name, JSON.stringify(more));
        }
      });
      const post = { method: 'POST', body: cut, headers: { ...headers, 'content-type': 'application/proto' } };
      for (const [path, init, status, name] of [
        [publishPath, { ...post, headers: { ...post.headers, 'content-encoding': 'gzip' } }, 400, 'request_malformed'],
        [publishPath, { ...post, headers: { ...post.headers, 'content-encoding': 'br' } }, 501, 'content_encoding'],
        [publishPath, { ...post, headers: { ...post.headers, 'connect-timeout-ms': 'x' } }, 400, 'request_malformed'],
        [`${service}/GetLimits?connect=v1&encoding=proto&base64=1&message=!`, { headers }, 400, 'request_malformed'],
      ] as const) {
        const answer = await fetch(`${url}${path}`, init);
        assert.equal([answer.status, (await answer.text()).includes(`"reason":"${name}"`)], [status, true], name);
      }
    });
  },
);

onBothPaths(
  test,
  'bytes that are no HTTP request are refused in words, and never in place of an answer that is owed',
  async (withGateway) => {
    await withGateway({}, async (running) => {
      const { port, headers } = running;
      const head = (more = '') =>
        `POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: ${headers.authorization}\r\ncontent-type: application/json\r\n${more}`;
      const garbage = await raw(port, 'hello\r\n\r\n');
      assert.match(garbage, /^HTTP\/1\.1 400 Bad Request\r\n[\s\S]*"code":"http_malformed"/);
      assert.match(await raw(port, `${head('content-length: 0x5\r\n')}\r\n`), /http_malformed[\s\S]*Content-Length/);
      const body = json('owed');
      const two = `${head(`content-length: ${body.length}\r\nidempotency-key: owed-1\r\n`)}\r\n${body}`;
      const answers = await raw(port, `${two}${two.replace('owed-1', 'owed-2')}no request\r\n\r\n`);
      assert.match(
        answers,
        /^HTTP\/1\.1 202 [\s\S]*owed-1[\s\S]*HTTP\/1\.1 202 [\s\S]*owed-2[\s\S]*HTTP\/1\.1 400 [\s\S]*http_malformed/,
      );
      assert.is(answers.match(/HTTP\/1\.1 \d{3} /g)?.length, 3);
      // Part of a request that broke off: what came whole is answered, the rest refused.
      const broken = await raw(
        port,
        `${two.replace('owed-1', 'owed-3')}${head('transfer-encoding: chunked\r\n')}\r\nzz\r\n`,
      );
      assert.match(broken, /^HTTP\/1\.1 202 [\s\S]*owed-3[\s\S]*HTTP\/1\.1 400 [\s\S]*http_malformed/);
      assert.match(
        await raw(
          port,
          two.replace('owed-1', 'owed-4').replace('\r\n', '\r\nexpect: a miracle\r\nconnection: close\r\n'),
        ),
        /^HTTP\/1\.1 202 /,
      );
      assert.equal(await storedIds(running), ['owed-1', 'owed-2', 'owed-3', 'owed-4']);
    });
  },
);

onBothPaths(test, 'a call needs no authority that fits into a URL', async (withGateway) => {
  await withGateway({}, async ({ url, port, headers }) => {
    const rest = `authorization: ${headers.authorization}\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}`;
    for (const host of ['HTTP/1.0\r\n', 'HTTP/1.1\r\nhost: \r\n', 'HTTP/1.1\r\nhost: a b[\r\n']) {
      assert.match(
        await raw(port, `POST ${service}/GetLimits ${host}${rest}`),
        /^HTTP\/1\.1 200 [\s\S]*maxBatchBytes/,
        host,
      );
    }
    await withSession(url, async (session) => {
      const { trailers } = await bareCall(session, {
        headers: {
          ...headers,
          ':authority': '%2Ftmp%2Fsocket',
          ':path': `${service}/GetLimits`,
          'content-type': 'application/grpc',
        },
        pieces: [framed(Buffer.alloc(0))],
      });
      assert.is(trailers['grpc-status'], '0');
    });
  });
});

onBothPaths(
  test,
  'what stands before a message that ends a stream is answered, though all came at once',
  async (withGateway) => {
    await withGateway({}, async (running) => {
      const { url, headers } = running;
      const asJson = (id: string) =>
        Buffer.from(JSON.stringify({ batchId: id, batch: { events: [JSON.parse(json(id))] } }));
      const tooLarge = framed(Buffer.alloc(100));
      tooLarge.writeUInt32BE(64 * 1024 * 1024, 1);
      const expected: string[] = [];
      await withSession(url, async (session) => {
        for (const [type, encoding, message] of [
          ['application/grpc', 'identity', request],
          ['application/grpc', 'gzip', request],
          ['application/grpc+json', 'identity', asJson],
        ] as const) {
          for (const [bad, name] of [
            [tooLarge, 'large'],
            [framed(message('flags'), 4), 'flags'],
          ] as const) {
            const ids = ['1', '2'].map((n) => `${type === 'application/grpc' ? encoding : 'json'}-${name}-${n}`);
            expected.push(...ids);
            const answer = await bareCall(session, {
              headers: { ...headers, ':path': `${publishPath}Stream`, 'content-type': type, 'grpc-encoding': encoding },
              pieces: [Buffer.concat([...ids.map((id) => framed(message(id))), bad])],
              open: true,
            });
            assert.is(answer.trailers['grpc-status'], '3', `${type} ${encoding} ${name}`);
            assert.match(
              String(answer.trailers['grpc-message']),
              /^Message 3 of the stream: /,
              `${type} ${encoding} ${name}`,
            );
            assert.is(envelopesOf(answer.body).length, 3, 'limits, and two answers');
          }
        }
      });
      assert.equal(await storedIds(running), expected.sort());
    });
  },
);

onBothPaths(test, 'the absolute form of a target and OPTIONS * are answered', async (withGateway) => {
  await withGateway({}, async ({ port }) => {
    const close = 'host: x\r\nconnection: close\r\n\r\n';
    assert.match(
      await raw(port, `GET http://127.0.0.1:${port}/healthz HTTP/1.1\r\n${close}`),
      /^HTTP\/1\.1 200 [\s\S]*alive/,
    );
    assert.match(await raw(port, `GET http://127.0.0.1:${port} HTTP/1.1\r\n${close}`), /^HTTP\/1\.1 404 /);
    assert.match(
      await raw(port, `OPTIONS * HTTP/1.1\r\n${close}`),
      /^HTTP\/1\.1 204 [\s\S]*allow: GET, HEAD, POST, OPTIONS/i,
    );
  });
});

onBothPaths(test, 'who waits with the body is asked for it only when it will be read', async (withGateway) => {
  await withGateway({}, async (running) => {
    const { port, headers } = running;
    const ask = (path: string, type: string, key: string, length: number) =>
      `POST ${path} HTTP/1.1\r\nhost: x\r\nauthorization: ${key}\r\nidempotency-key: waits\r\ncontent-type: ${type}\r\n` +
      `content-length: ${length}\r\nexpect: 100-continue\r\n\r\n`;
    for (const [path, type, large] of [
      ['/v1/events', 'application/json', 64 * 1024 * 1024],
      [publishPath, 'application/json', 64 * 1024 * 1024],
      [publishPath, 'application/proto', 8 * 1024 * 1024],
    ] as const) {
      assert.match(await raw(port, ask(path, type, 'Bearer no', 10)), /^HTTP\/1\.1 401 /, `${path} ${type}`);
      assert.match(
        await raw(port, ask(path, type, headers.authorization, large)),
        /^HTTP\/1\.1 413 |^HTTP\/1\.1 4(00|29) /,
      );
      assert.match(
        await raw(port, ask(path, type, headers.authorization, 10), /\r\n\r\n/),
        /^HTTP\/1\.1 100 Continue\r\n/,
      );
    }
    const body = json('a');
    const answer = await raw(
      port,
      ask('/v1/events', 'application/json', headers.authorization, body.length) + body,
      /202/,
    );
    assert.match(answer, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 202 /);
    // Over HTTP/2, where the hot path leaves such calls to the library.
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    for (const [expect, id] of [
      ['100-continue', 'continued'],
      ['100-Continue', 'any-case'],
      ['something-else', 'ignored'],
    ] as const) {
      const stream = session.request({
        ...headers,
        ':method': 'POST',
        ':path': publishPath,
        'content-type': 'application/proto',
        expect,
      });
      const status = new Promise((resolve) => stream.once('response', (all) => resolve(all[':status'])));
      if (id !== 'ignored') await new Promise((resolve) => stream.once('continue', resolve));
      stream.end(request(id));
      assert.is(await status, 200, expect);
    }
    session.destroy();
    assert.equal(await storedIds(running), ['any-case', 'continued', 'ignored', 'waits']);
  });
});

onBothPaths(
  test,
  'CONNECT and unknown expectations over HTTP/2 are refused like any call without a key',
  async (withGateway) => {
    await withGateway({}, async ({ url }) => {
      const session = connectHttp2(url);
      for (const [headers, status] of [
        [{ ':method': 'CONNECT', ':authority': 'elsewhere:443' }, 404],
        [
          { ':method': 'POST', ':path': publishPath, 'content-type': 'application/proto', expect: 'something-else' },
          401,
        ],
      ] as const) {
        // Its body does not end.
        const stream = session.request(headers, { endStream: false });
        stream.on('error', () => {});
        stream.resume();
        const closed = new Promise((resolve) => stream.once('close', resolve));
        const answered = new Promise((resolve) => stream.once('response', (all) => resolve(all[':status'])));
        stream.write(Buffer.alloc(1_000));
        assert.is(await answered, status);
        await closed;
      }
      session.destroy();
    });
  },
);

onBothPaths(test, 'an idempotency key may be a quoted string, and is refused by its own name', async (withGateway) => {
  await withGateway({}, async (running) => {
    const { url, headers } = running;
    const send = async (key: string) => {
      const answer = await fetch(`${url}/v1/events`, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json', 'idempotency-key': key },
        body: json('e'),
      });
      return { status: answer.status, text: await answer.text() };
    };
    assert.is((await send('"abc-1"')).status, 202);
    assert.is((await send('abc-2')).status, 202);
    for (const key of ['"abc', '""', '"a b"', 'ä', 'x'.repeat(65), '"a", "b"']) {
      const { status, text } = await send(key).catch(() => ({ status: 400, text: 'idempotency-key' }));
      assert.is(status, 400, key);
      assert.match(text, /idempotency-key/, key);
    }
    assert.equal(await storedIds(running), ['abc-1', 'abc-2']);
  });
});

onBothPaths(test, 'reserved flags and bytes that are no message are the fault of their sender', async (withGateway) => {
  await withGateway({}, async ({ url, headers }) => {
    await withSession(url, async (session) => {
      const statusOf = async (path: string, type: string, body: Buffer): Promise<string> => {
        const {
          headers: head,
          trailers,
          body: answer,
        } = await bareCall(session, {
          headers: { ...headers, ':path': path, 'content-type': type },
          pieces: [body],
        });
        const text = type.includes('text')
          ? decodeText(answer.toString()).toString('latin1')
          : answer.toString('latin1');
        const inBody = /grpc-status: (\d+)/.exec(text)?.[1] ?? /"code":\s*"(\w+)"/.exec(text)?.[1];
        return String(trailers['grpc-status'] ?? head['grpc-status'] ?? inBody ?? head[':status']);
      };
      const malformed = Buffer.from([0x0a, 0xff, 0xff]);
      const methods = [
        publishPath,
        `${publishPath}Stream`,
        `${service}/GetLimits`,
        `${service}/GetBatchStatus`,
        '/grpc.health.v1.Health/Check',
        '/grpc.health.v1.Health/List',
        '/grpc.health.v1.Health/Watch',
        '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
      ];
      for (const path of methods) {
        for (const type of ['application/grpc', 'application/grpc-web', 'application/grpc-web-text']) {
          const body = (bytes: Buffer) => (type.includes('text') ? Buffer.from(bytes.toString('base64')) : bytes);
          assert.is(await statusOf(path, type, body(framed(malformed))), '3', `${path} ${type}`);
          for (const flags of [0x02, 0x40, 0x7e]) {
            assert.is(await statusOf(path, type, body(framed(request('r'), flags))), '3', `${path} ${type} ${flags}`);
          }
        }
        const streams = /Stream|Watch|Info/.test(path);
        const connectType = streams ? 'application/connect+proto' : 'application/proto';
        const sent = streams ? framed(malformed) : malformed;
        assert.is(await statusOf(path, connectType, sent), 'invalid_argument', `${path} ${connectType}`);
      }
    });
  });
});

onBothPaths(test, 'too many or too long headers get a final answer in every protocol', async (withGateway) => {
  await withGateway({}, async ({ url, port, headers }) => {
    const many = Object.fromEntries(Array.from({ length: 120 }, (_, i) => [`x-${i}`, 'y']));
    const long = { cookie: 'c'.repeat(17 * 1024) };
    for (const more of [many, long]) {
      await withSession(url, async (session) => {
        for (const type of [
          'application/grpc',
          'application/grpc-web',
          'application/connect+proto',
          'application/json',
        ]) {
          const path = type === 'application/connect+proto' ? `${publishPath}Stream` : publishPath;
          const answer = await bareCall(session, {
            headers: { ...headers, ...more, ':path': path, 'content-type': type },
            pieces: [framed(request('r'))],
          });
          const said = JSON.stringify([answer.headers, answer.trailers, answer.body.toString('latin1')]);
          if (type === 'application/json') assert.is(answer.headers[':status'], 431);
          else assert.match(said, /grpc-status\D+3\b|invalid_argument/, `${type} ${said}`);
          assert.match(decodeURIComponent(said.replace(/%(?![0-9A-F]{2})/g, '')), /the limit is (100|16384)/, type);
        }
        // The session goes on.
        const fine = await bareCall(session, {
          headers: { ...headers, ':path': publishPath, 'content-type': 'application/grpc' },
          pieces: [framed(request('after'))],
        });
        assert.is(fine.trailers['grpc-status'], '0');
      });
      const lines = Object.entries(more).map(([name, value]) => `${name}: ${value}\r\n`);
      const answer = await raw(port, `GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n${lines.join('')}\r\n`);
      assert.match(answer, /^HTTP\/1\.1 431 [\s\S]*headers_too_large/);
    }
  });
});

onBothPaths(
  test,
  'a stream with a message that is too large ends, and says which and what the limit is',
  async (withGateway) => {
    await withGateway({ maxBatchBytes: 64 * 1024 }, async (running) => {
      const { url, headers } = running;
      await withSession(url, async (session) => {
        const answer = await bareCall(session, {
          headers: { ...headers, ':path': `${publishPath}Stream`, 'content-type': 'application/grpc' },
          pieces: [framed(request('first')), 2, framed(Buffer.alloc(128 * 1024 + 1))],
        });
        assert.is(answer.trailers['grpc-status'], '3');
        const message = decodeURIComponent(String(answer.trailers['grpc-message']));
        assert.match(message, /^Message 2 of the stream: .*131073.*131072 bytes\)\. Split the batch/);
        assert.is(envelopesOf(answer.body).length, 2);
      });
      assert.equal(await storedIds(running), ['first']);
    });
  },
);

test.run();
