import type { ClientHttp2Session } from 'node:http2';
import { gzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { bareCall, envelopesOf, withSession } from '../testing/bare-call.js';
import { stored } from '../testing/ingest.js';
import { withGateway } from '../testing/running-gateway.js';

interface Result {
  readonly batchId: string;
  readonly accepted: number;
  readonly rejected: number;
  readonly rejections: readonly { index: number; field: string; code: string; message: string }[];
  readonly ignoredFields: readonly string[];
}

interface JsonOutcome {
  readonly result: Result | undefined;
  /** All that is said of an error. */
  readonly error: string;
}

/** An answer on a stream. */
interface Told {
  readonly accepted?: Result;
  readonly failed?: { readonly batchId: string; readonly message: string };
}

/** One way to send a batch as JSON: its route, and what stands around it. */
interface Path {
  readonly name: string;
  readonly route: string;
  readonly type: string;
  /** The name of the header that says how the request is compressed. */
  readonly encoding: string;
  readonly enveloped: boolean;
  /** Events stand at the top instead of in `batch`. */
  readonly flat: boolean;
}

const service = '/sluice.ingest.v1.IngestService';
const paths: Path[] = [];
for (const [type, unary, encoding] of [
  ['application/grpc+json', true, 'grpc-encoding'],
  ['application/grpc-web+json', true, 'grpc-encoding'],
  ['application/connect+json', false, 'connect-content-encoding'],
] as const) {
  const shared = { type, encoding, enveloped: true, flat: false };
  if (unary) paths.push({ ...shared, name: `${type}, unary`, route: `${service}/Publish` });
  paths.push({ ...shared, name: `${type}, stream`, route: `${service}/PublishStream` });
}
const plain = { type: 'application/json', encoding: 'content-encoding', enveloped: false };
paths.push({ ...plain, name: 'Connect, unary', route: `${service}/Publish`, flat: false });
paths.push({ ...plain, name: 'HTTP', route: '/v1/events/batch', flat: true });

const envelope = (flags: number, bytes: Uint8Array): Buffer => {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
};

interface Call {
  /** The array of events, as JSON. */
  readonly events: string | Uint8Array;
  /** Members beside it. */
  readonly beside?: string;
  readonly headers?: Record<string, string>;
  readonly gzip?: boolean;
}

/** An error inside of JSON, as it was before. */
const unquoted = (error: string): string => error.replaceAll('\\"', '"');

/** Sends a batch that way. */
async function send(session: ClientHttp2Session, path: Path, call: Call): Promise<JsonOutcome> {
  const { events, beside = '', headers, gzip = false } = call;
  const open = path.flat ? `{${beside}"events":` : `{${beside}"batch":{"events":`;
  const json = Buffer.concat([Buffer.from(open), Buffer.from(events), Buffer.from(path.flat ? '}' : '}}')]);
  const body = gzip ? gzipSync(json) : json;
  const answer = await bareCall(session, {
    headers: {
      ':path': path.route,
      'content-type': path.type,
      ...(gzip ? { [path.encoding]: 'gzip' } : {}),
      ...headers,
    },
    pieces: [path.enveloped ? envelope(gzip ? 1 : 0, body) : body],
  });
  if (!path.enveloped) {
    const told = JSON.parse(answer.body.toString()) as Result & { result?: Result };
    const status = Number(answer.headers[':status']);
    if (status === 200) return { result: told.result, error: '' };
    return status === 202
      ? { result: told, error: '' }
      : { result: undefined, error: unquoted(answer.body.toString()) };
  }
  let result: Result | undefined;
  let error = decodeURIComponent(String(answer.trailers['grpc-message'] ?? answer.headers['grpc-message'] ?? ''));
  for (const [flags, bytes] of envelopesOf(answer.body)) {
    if (flags === 0) {
      const message = JSON.parse(bytes.toString()) as Partial<Record<'result' | 'accepted', Result>> & {
        failed?: { message: string };
      };
      result = message.result ?? message.accepted ?? result;
      error += message.failed?.message ?? '';
    } else error += decodeURIComponent(bytes.toString());
  }
  return { result, error: unquoted(error) };
}

const good = (id: string): string =>
  JSON.stringify({ eventId: id, type: 'EVENT_TYPE_CLICK', occurredAt: '2026-01-31T12:00:00Z' });
const event = (members: string): string => `${good('x').slice(0, -1)},${members}}`;

const bad: [string, string, string][] = [
  ['null', '', 'TYPE'],
  ['[1]', '', 'TYPE'],
  ['"event"', '', 'TYPE'],
  ['3', '', 'TYPE'],
  [event('"userId":7'), 'user_id', 'TYPE'],
  [event('"properties":{"qty":2}'), 'properties[qty]', 'TYPE'],
  [event('"touch":{"channel":7}'), 'touch.channel', 'TYPE'],
  [event('"touch":{"costMicros":"0x10"}'), 'touch.cost_micros', 'TYPE'],
  [event('"type":"EVENT_TYPE_CLIK"').replace('"type":"EVENT_TYPE_CLICK",', ''), 'type', 'UNKNOWN_ENUM'],
  [good('x').replace('01-31', '02-30'), 'occurred_at', 'TYPE'],
  [good('x').replace('T12', 'T24'), 'occurred_at', 'TYPE'],
  [event('"colour":"red"'), 'colour', 'UNKNOWN_FIELD'],
  [event('"userId":"\\ud800"'), 'user_id', 'UTF8'],
  [event('"userId":"a","user_id":"a"'), 'user_id', 'REPEATED'],
  [event('"userId":"a","\\u0075serId":"a"'), 'user_id', 'REPEATED'],
  [event('"properties":{"a":"1","\\u0061":"2"}'), 'properties[a]', 'REPEATED'],
  [event(`"properties":{"a":${'['.repeat(9_000)}${']'.repeat(9_000)}}`), 'properties[a]', 'TYPE'],
  [event('"device":{"country":"ch"}'), 'device.country', 'CHARSET'],
];

test('on every JSON path a bad event costs itself alone, and is named by index, field and code', async () => {
  await withGateway({}, async ({ url, headers, nats }) => {
    const wanted = bad.map(([, field, code], i) => `${2 * i + 1} ${field} REJECTION_CODE_${code}`);
    const goods = bad.map((_, i) => `good-${i}`);
    const events = `[${bad.flatMap(([json], i) => [good(`good-${i}`), json]).join()}]`;
    await withSession(url, async (session) => {
      for (const [i, path] of paths.entries()) {
        for (const gzip of [false, true]) {
          const beside = `"batchId":"b-${i}${gzip ? '-gzip' : ''}","attempt":1,`;
          const { result, error } = await send(session, path, { events, beside, headers, gzip });
          const told = (result?.rejections ?? []).map(({ index, field, code }) => `${index} ${field} ${code}`);
          assert.equal(told, wanted, `${path.name}: ${error}`);
          assert.equal([result?.accepted, result?.rejected], [bad.length, bad.length], path.name);
          assert.equal(result?.ignoredFields, [], path.name);
        }
      }
    });
    const batches = (await stored(nats)).flatMap((message) => message.batches);
    assert.is(batches.length, 2 * paths.length);
    for (const batch of batches) {
      assert.equal(
        batch.events.map(({ eventId }) => eventId),
        goods,
        batch.batchId,
      );
      assert.is(batch.rejectedCount, bad.length);
    }
  });
});

test('on every JSON path a batch of bad events is answered, bytes that are no UTF-8 cost their event, and digits are kept', async () => {
  await withGateway({}, async ({ url, headers, nats }) => {
    await withSession(url, async (session) => {
      for (const [i, path] of paths.entries()) {
        const none = await send(session, path, { events: '[null,7]', headers });
        assert.equal([none.result?.accepted, none.result?.rejected], [0, 2], `${path.name}: ${none.error}`);
        const [before, after] = [
          Buffer.from(`[${good('a')},{"userId":"`),
          Buffer.from(`"},${event('"valueMicros":999999999999999')}]`),
        ];
        const events = Buffer.concat([before, Buffer.of(0xc3), after]);
        const { result, error } = await send(session, path, { events, beside: `"batch_id":"odd-${i}",`, headers });
        assert.equal(
          result?.rejections.map(({ index, field, code }) => [index, field, code]),
          [[1, 'user_id', 'REJECTION_CODE_UTF8']],
          `${path.name}: ${error}`,
        );
      }
    });
    const batches = (await stored(nats)).flatMap((message) => message.batches);
    assert.is(batches.length, paths.length);
    for (const { events } of batches)
      assert.equal(
        events.map((one) => one.valueMicros),
        [0n, 999_999_999_999_999n],
      );
  });
});

test('on every JSON path a request may ask to leave out unknown fields, and hears which', async () => {
  await withGateway({}, async ({ url, headers, nats }) => {
    const events = `[${event('"colour":1,"touch":{"chanel":[{}],"channel":"a"}')},${event('"colour":2,"constructor":3')}]`;
    await withSession(url, async (session) => {
      for (const path of paths) {
        const ignoring = { ...headers, 'sluice-unknown-fields': 'ignore' };
        const { result, error } = await send(session, path, { events, beside: '"extra":{"a":1},', headers: ignoring });
        assert.equal(
          result?.ignoredFields,
          ['extra', 'colour', 'touch.chanel', 'constructor'],
          `${path.name}: ${error}`,
        );
        assert.is(result?.accepted, 2, path.name);
        const names = Array.from({ length: 101 }, (_, i) => `"extra${i}":[],`).join('');
        const many = await send(session, path, { events, beside: names, headers: ignoring });
        assert.match(many.error, /extra100: one of more than 100 unknown fields/, path.name);
        const odd = await send(session, path, { events, headers: { ...headers, 'sluice-unknown-fields': 'maybe' } });
        assert.match(odd.error, /sluice-unknown-fields is "maybe"/, path.name);
      }
    });
    for (const { batches } of await stored(nats)) {
      for (const batch of batches) assert.is(batch.events[0]?.touch?.channel, 'a');
    }
  });
});

test('on every JSON path a fault outside of the events refuses the request, by the name of the field', async () => {
  await withGateway({ maxBatchEvents: 50 }, async ({ url, headers, nats }) => {
    const cases: [string, RegExp][] = [
      ['"batchId":7,', /batch_id: expected a string, got a number/],
      ['"batchId":"a","batch_id":"a",', /batch_id: given twice/],
      ['"batchId":"a","batch\\u0049d":"a",', /batch_id: given twice/],
      ['"attempt":1,"attempt":1,', /attempt: given twice/],
      ['"attempt":"0x1",', /attempt: is "0x1", which is no whole number/],
      ['"attempt":-1,', /attempt: is -1; a uint32 holds/],
      ['"sentAt":"2026-02-30T00:00:00Z",', /sent_at: is "2026-02-30T00:00:00Z", which is no time/],
      ['"sentAt":1769860800,', /sent_at: expected a time/],
      ['"sentAt":"1969-12-31T23:59:59Z",', /sent_at is before 1970 or after 2199/],
      ['"sentAt":"9999-12-31T23:59:59Z",', /sent_at is before 1970 or after 2199/],
      ['"colour":1,', /colour: there is no such field/],
      ['"__proto__":{"batchId":"a"},', /__proto__: there is no such field/],
      ['"batchId":"\\ud800",', /batch_id: holds half of a surrogate pair/],
      ['"batchId":"a b",', /batch_id/],
      ['"attempt":01,', /The body is not JSON: at byte/],
    ];
    await withSession(url, async (session) => {
      for (const path of paths) {
        for (const [beside, message] of cases) {
          const { result, error } = await send(session, path, { events: `[${good('a')}]`, beside, headers });
          assert.is(result, undefined, `${path.name}: ${beside}`);
          assert.match(error, message, `${path.name}: ${beside}`);
        }
        const notAnArray = await send(session, path, { events: '{}', headers });
        assert.match(notAnArray.error, /events: expected an array, got an object/, path.name);
        const many = `[${'{},'.repeat(80_000)}{}]`;
        const tooMany = await send(session, path, { events: many, headers, gzip: true });
        assert.match(tooMany.error, /more than 50 events/, path.name);
        const bomb = await send(session, path, { events: `[${'{},'.repeat(1_300_000)}{}]`, headers, gzip: true });
        assert.match(bomb.error, /bytes of gzip inflate to more than \d+ bytes/, path.name);
      }
    });
    assert.is((await stored(nats)).length, 0);
  });
});

test('a stream of JSON goes on after a batch with bad events, and may carry options alone', async () => {
  await withGateway({}, async ({ url, headers }) => {
    await withSession(url, async (session) => {
      const messages = [
        '{"options":{"durability":"DURABILITY_ACCEPTED"}}',
        '{"batchId":"one","batch":{"events":[null]},"options":{"durability":2}}',
        `{"batchId":"two","batch":{"events":[${good('a')}]},"options":null}`,
      ];
      const answer = await bareCall(session, {
        headers: { ':path': `${service}/PublishStream`, 'content-type': 'application/connect+json', ...headers },
        pieces: messages.map((message) => envelope(0, Buffer.from(message))),
      });
      const told = envelopesOf(answer.body).map(([, bytes]) => JSON.parse(bytes.toString()) as { accepted?: Result });
      const accepted = told.flatMap((message) => message.accepted ?? []);
      assert.equal(accepted.map(({ batchId, accepted: taken, rejected }) => [batchId, taken, rejected]).sort(), [
        ['one', 0, 1],
        ['two', 1, 0],
      ]);
    });
  });
});

test('a stream of JSON goes on after a message that is refused, which has a failure with its batch id or its place', async () => {
  const limits = { maxBatchEvents: 50, maxBatchBytes: 16 * 1024 };
  await withGateway(limits, async ({ url, headers, nats }) => {
    const message = (beside: string, events = good('a')) => `{${beside}"batch":{"events":[${events}]}}`;
    const fat = event(`"name":"${'x'.repeat(17_000)}"`);
    const cases: [string, string, RegExp][] = [
      [message('"batchId":"many",', '{},'.repeat(50).concat('{}')), 'many', /^The batch has more than 50 events/],
      [`{"batch":{"events":[${fat}]},"batchId":"fat"}`, 'fat', /^The batch has more than 16384 bytes/],
      [message('"batchId":"minus","attempt":-1,'), 'minus', /^attempt: is -1/],
      [message('"sentAt":"2026-02-30T00:00:00Z","batch_id":"feb",'), 'feb', /^sent_at: is "2026-02-30/],
      [message('"colour":{"batchId":"no"},"batchId":"colour",'), 'colour', /^colour: there is no such field/],
      [message('"batchId":7,'), '', /^Message 6 of the stream: batch_id: expected a string/],
      [`{"batchId":"cut","batch":{"events":[`, 'cut', /^The body is not JSON/],
      ['hello', '', /^Message 8 of the stream: The body is not JSON/],
      ['', '', /^Message 9 of the stream: The body is not JSON/],
      ['[]', '', /^Message 10 of the stream: The request: expected an object/],
    ];
    const streams = paths.filter(({ route }) => route.endsWith('Stream'));
    assert.is(streams.length, 3);
    await withSession(url, async (session) => {
      for (const { name, route, type } of streams) {
        const last = message(`"batchId":"last",`);
        const answer = await bareCall(session, {
          headers: { ':path': route, 'content-type': type, ...headers },
          pieces: [...cases.map(([json]) => json), last].map((json) => envelope(0, Buffer.from(json))),
        });
        const told = envelopesOf(answer.body)
          .filter(([flags]) => flags === 0)
          .map(([, bytes]) => JSON.parse(bytes.toString()) as Told);
        const failed = told.flatMap((one) => one.failed ?? []);
        assert.equal(
          failed.map(({ batchId }) => batchId),
          cases.map(([, batchId]) => batchId),
          name,
        );
        for (const [i, [json, , words]] of cases.entries()) {
          assert.match(failed[i]?.message ?? '', words, `${name}: ${json.slice(0, 100)}`);
        }
        assert.equal(
          told.flatMap((one) => one.accepted?.batchId ?? []),
          ['last'],
          name,
        );
      }
    });
    assert.is((await stored(nats)).flatMap(({ batches }) => batches).length, streams.length);
  });
});

test('the answer about a single event speaks of its field', async () => {
  await withGateway({}, async ({ url, headers }) => {
    const post = async (body: string, more: Record<string, string> = {}) => {
      const response = await fetch(`${url}/v1/events`, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json', ...more },
        body,
      });
      return { status: response.status, body: (await response.json()) as Result & { error: Record<string, unknown> } };
    };
    for (const [json, field, code] of bad) {
      const { status, body } = await post(json);
      assert.is(status, 400, json.slice(0, 100));
      assert.is(body.error.code, 'event_invalid');
      assert.is(body.error.field, field);
      assert.is(body.error.rejection, `REJECTION_CODE_${code}`);
      assert.not.match(String(body.error.message), /events\[/);
      if (field !== '') assert.ok(String(body.error.message).startsWith(`${field}: `));
    }
    const ignoring = await post(event('"colour":1'), { 'sluice-unknown-fields': 'ignore' });
    assert.is(ignoring.status, 202);
    assert.equal(ignoring.body.ignoredFields, ['colour']);
    const twice = await post(`${good('a')}${good('b')}`);
    assert.is(twice.body.error.code, 'json_invalid');
    const empty = await post('');
    assert.match(String(empty.body.error.message), /at byte 0 the body ends/);
  });
});

test.run();
