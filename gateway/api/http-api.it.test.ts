import { gzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../../lib/testing/until.js';
import { stored } from '../testing/ingest.js';
import { withGateway } from '../testing/running-gateway.js';

const event = (id: string) => ({ eventId: id, type: 'EVENT_TYPE_CLICK', occurredAt: '2026-01-02T03:04:05Z' });

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: {
    readonly batchId?: string;
    readonly accepted?: number;
    readonly rejected?: number;
    readonly rejections?: { index: number; field: string; code: string; message: string }[];
    readonly position?: { stream: string; shard: number; sequence: string };
    readonly error?: {
      code: string;
      message: string;
      fix: string;
      field?: string;
      rejection?: string;
      retryAfterMs?: number;
    };
    readonly status?: string;
    readonly reason?: string;
  };
}

async function call(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, init);
  return { status: response.status, headers: response.headers, body: (await response.json()) as Answer['body'] };
}

const json = { 'content-type': 'application/json' };

test('one event and a batch are accepted as JSON and stored once durable', async () => {
  await withGateway({}, async ({ url, headers, nats }) => {
    const one = await call(`${url}/v1/events`, {
      method: 'POST',
      headers: { ...headers, ...json, 'idempotency-key': 'order-1' },
      body: JSON.stringify(event('a')),
    });
    assert.is(one.status, 202);
    assert.is(one.body.batchId, 'order-1');
    assert.is(one.body.accepted, 1);
    assert.is(one.body.rejected, 0);
    assert.is(one.body.position, undefined);
    const many = await call(`${url}/v1/events/batch`, {
      method: 'POST',
      headers: { ...headers, ...json, 'content-encoding': 'gzip' },
      body: gzipSync(
        JSON.stringify({ batch_id: 'b-2', attempt: 1, events: [event('b'), { ...event('c'), type: 0 }, event('d')] }),
      ),
    });
    const invalid = await call(`${url}/v1/events`, {
      method: 'POST',
      headers: { ...headers, ...json },
      body: JSON.stringify({ ...event('x'), device: { country: 'ch' } }),
    });
    assert.is(invalid.status, 400);
    assert.is(invalid.body.error?.code, 'event_invalid');
    assert.match(invalid.body.error?.message ?? '', /^device\.country: /);
    assert.is(invalid.body.error?.field, 'device.country');
    assert.is(invalid.body.error?.rejection, 'REJECTION_CODE_CHARSET');
    assert.is(many.status, 202);
    assert.is(many.body.accepted, 2);
    assert.is(many.body.rejected, 1);
    assert.is(many.body.rejections?.[0]?.index, 1);
    assert.is(many.body.rejections?.[0]?.field, 'type');
    assert.is(many.body.rejections?.[0]?.code, 'REJECTION_CODE_REQUIRED');
    const batches = (await stored(nats)).flatMap((message) => message.batches);
    const ids = new Map(batches.map((batch) => [batch.batchId, batch.events.map(({ eventId }) => eventId)]));
    assert.equal(ids.get('order-1'), ['a']);
    assert.equal(ids.get('b-2'), ['b', 'd']);
    assert.is(batches.find(({ batchId }) => batchId === 'order-1')?.attempt, 0);
    assert.is(batches.find(({ batchId }) => batchId === 'b-2')?.attempt, 1);
  });
});

test('every bad request has its status, its name, and what to do', async () => {
  await withGateway({ maxBatchBytes: 16 * 1024 }, async ({ url, headers }) => {
    const refused = async (path: string, init: RequestInit, status: number, code: string, message = /./) => {
      const answer = await call(`${url}${path}`, init);
      assert.is(answer.status, status, `${code}: ${JSON.stringify(answer.body)}`);
      assert.is(answer.body.error?.code, code);
      assert.match(answer.body.error?.message ?? '', message);
      assert.ok((answer.body.error?.fix ?? '').length > 10);
      return answer;
    };
    const post = (body: string | Uint8Array, more: Record<string, string> = {}): RequestInit => ({
      method: 'POST',
      headers: { ...headers, ...json, ...more },
      body,
    });
    const good = JSON.stringify(event('a'));
    await refused('/v1/events', { method: 'POST', headers: json, body: good }, 401, 'key_missing');
    await refused('/v1/events', post(good, { authorization: 'Bearer no' }), 401, 'key_unknown');
    const wrong = await refused('/v1/events', { headers }, 405, 'method_not_allowed');
    assert.is(wrong.headers.get('allow'), 'POST, OPTIONS');
    await refused('/v1/event', post(good), 404, 'not_found');
    await refused('/v1/events', post(good, { 'content-type': 'text/plain' }), 415, 'media_type');
    await refused('/v1/events', post(good, { 'content-encoding': 'br' }), 415, 'content_encoding');
    await refused('/v1/events', post('{"eventId":'), 400, 'json_invalid');
    await refused('/v1/events', post(Uint8Array.of(0x22, 0xff, 0x22)), 400, 'event_invalid');
    await refused('/v1/events', post('[]'), 400, 'event_invalid', /^The event: expected an object/);
    await refused('/v1/events', post('{"colour":"red"}'), 400, 'event_invalid', /^colour: unknown field/);
    await refused(
      '/v1/events',
      post('{"occurredAt":"yesterday"}'),
      400,
      'event_invalid',
      /^occurred_at: is "yesterday"/,
    );
    await refused('/v1/events', post(good, { 'content-encoding': 'gzip' }), 400, 'json_invalid', /gzip/);
    const half = /holds half of a surrogate pair .* within one\?$/;
    await refused('/v1/events', post('{"userId":"\\ud800"}'), 400, 'event_invalid', half);
    await refused('/v1/events/batch', post('{"batchId":"\\ud800","events":[]}'), 400, 'json_invalid', half);
    for (const [number, shown] of [
      ['-9007199254740993', 'is about -9007199254740992;'],
      ['9007199254740993', 'is about 9007199254740992;'],
    ] as const) {
      const far = good.replace('}', `,"valueMicros":${number}}`);
      await refused('/v1/events', post(far), 400, 'event_invalid', new RegExp(`^value_micros: ${shown}`));
    }
    await refused('/v1/events/batch', post('{"events":[],"colour":1}'), 400, 'json_invalid', /colour/);
    await refused('/v1/events/batch', post('{"events":[]}'), 400, 'batch_empty');
    await refused('/v1/events/batch', post('{}'), 400, 'batch_empty');
    await refused('/v1/events/batch', post(`{"batchId":"a b","events":[${good}]}`), 400, 'batch_id_invalid');
    await refused('/v1/events', post(good, { 'idempotency-key': 'ä'.normalize() }), 400, 'batch_id_invalid');
    await refused(
      '/v1/events/batch',
      post(`{"batchId":"body-1","events":[${good}]}`, { 'idempotency-key': 'key-1' }),
      400,
      'batch_id_invalid',
      /idempotency-key is "key-1", and batchId in the body is "body-1"/,
    );
    const same = post(`{"batchId":"one","events":[${good}]}`, { 'idempotency-key': '"one"' });
    assert.is((await call(`${url}/v1/events/batch`, same)).body.batchId, 'one');
    const deep = `${'['.repeat(5_000)}${']'.repeat(5_000)}`;
    await refused('/v1/events', post(`{"properties":${deep}}`), 400, 'event_invalid', /^properties: /);
    // Over the limit of a batch, then of a body, then of a body that says so only when unpacked.
    const fat = (n: number) => JSON.stringify({ ...event('a'), name: 'x'.repeat(n) });
    await refused('/v1/events', post(fat(20_000)), 413, 'batch_too_large');
    await refused('/v1/events', post(fat(200_000)), 413, 'batch_too_large');
    await refused(
      '/v1/events',
      post(gzipSync(fat(50_000_000)), { 'content-encoding': 'gzip' }),
      413,
      'batch_too_large',
    );
    // And the gateway is as well as before.
    assert.is((await call(`${url}/v1/events`, post(good))).status, 202);
  });
});

test('healthz tells that the process lives, readyz whether batches can be taken and why not', async () => {
  await withGateway({}, async ({ url, headers, nats, gateway }) => {
    assert.is((await call(`${url}/healthz`)).body.status, 'alive');
    assert.is((await call(`${url}/readyz`)).status, 200);
    nats.process().kill('SIGKILL');
    await until('not ready', () => !gateway.ready);
    assert.is((await call(`${url}/healthz`)).status, 200);
    const answer = await call(`${url}/readyz`);
    assert.is(answer.status, 503);
    assert.ok((answer.body.reason ?? '').length > 5);
    const refused = await call(`${url}/v1/events`, {
      method: 'POST',
      headers: { ...headers, ...json },
      body: JSON.stringify(event('a')),
    });
    assert.is(refused.status, 503);
    assert.is(refused.body.error?.code, 'log_unavailable');
    assert.ok(Number(refused.headers.get('retry-after')) >= 1);
    assert.ok((refused.body.error?.retryAfterMs ?? 0) > 0);
    await nats.restart();
    await until('ready', () => gateway.ready);
    assert.is((await call(`${url}/readyz`)).status, 200);
  });
});

test('browsers may call from the origins on the list, and from no other', async () => {
  await withGateway({ corsOrigins: ['https://shop.example'] }, async ({ url, headers }) => {
    const publish = `${url}/sluice.ingest.v1.IngestService/Publish`;
    const preflight = (path: string, origin: string) =>
      fetch(path, {
        method: 'OPTIONS',
        headers: {
          origin,
          'access-control-request-method': 'POST',
          'access-control-request-headers': 'authorization,content-type,connect-protocol-version,x-grpc-web',
        },
      });
    for (const path of [publish, `${url}/v1/events`]) {
      const allowed = await preflight(path, 'https://shop.example');
      assert.is(allowed.status, 204);
      assert.is(allowed.headers.get('access-control-allow-origin'), 'https://shop.example');
      const names = (allowed.headers.get('access-control-allow-headers') ?? '').toLowerCase();
      for (const name of [
        'authorization',
        'content-type',
        'connect-protocol-version',
        'x-grpc-web',
        'idempotency-key',
      ]) {
        assert.ok(names.includes(name), name);
      }
      assert.match(allowed.headers.get('access-control-allow-methods') ?? '', /POST/);
      const other = await preflight(path, 'https://evil.example');
      assert.is(other.headers.get('access-control-allow-origin'), null);
      assert.is(other.headers.get('vary'), 'Origin');
    }
    const real = await fetch(publish, {
      method: 'POST',
      headers: { ...headers, ...json, origin: 'https://shop.example' },
      body: JSON.stringify({ batch: { events: [event('a')] } }),
    });
    assert.is(real.status, 200);
    assert.is(real.headers.get('access-control-allow-origin'), 'https://shop.example');
    assert.match(real.headers.get('access-control-expose-headers') ?? '', /grpc-status/i);
    // Errors must be readable too.
    const error = await fetch(publish, {
      method: 'POST',
      headers: { ...json, origin: 'https://shop.example' },
      body: '{}',
    });
    assert.is(error.status, 401);
    assert.is(error.headers.get('access-control-allow-origin'), 'https://shop.example');
  });
});

test.run();
