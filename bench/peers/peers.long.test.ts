/**
 * What makes the peers comparable: each stores what it was sent and says so only after the log's ack, and each refuses the
 * same invalid events as our scanner, by index, field and code. Those in Go are skipped, with a word, where Go is absent.
 */
import { clone, create, fromBinary, fromJson, type JsonObject, toJson } from '@bufbuild/protobuf';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Event, EventBatchSchema, EventSchema, EventType, type Platform } from '#gen/sluice/event/v1/event_pb.js';
import { IngestService, RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { scanBatch } from '../../lib/contract/index.js';
import { createRandom, encodeBatch, makeBatch, makeEvent } from '../../lib/testing/batches.js';
import { freeze } from '../../lib/testing/freeze.js';
import { GoMissing } from '../../lib/testing/go-missing.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { makeRichEvent } from '../../lib/testing/rich-events.js';
import { prepareOtlp } from '../compare/payloads.js';
import type { Generator } from '../generator.js';
import { sendUnary } from '../send-unary.js';
import { drive } from '../testing/drive.js';
import { exportLogs } from '../unary-methods.js';
import { type Peer, peers, type RunningPeer, startPeer } from './index.js';
import { encodeLogs } from './otlp-logs.js';
import { readLogs } from './otlp-reader.js';
import { createPeerStream } from './peer-log.js';
import { plainJson } from './plain-json.js';

const stream = 'PEER';
const tenant = 'acme';
const key = 'secret';

interface Answer {
  readonly accepted: number;
  readonly rejections: readonly { index: number; field: string; code: string }[];
  readonly sequence: number | undefined;
}

interface Subject {
  readonly nats: TestNats;
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  send(batchId: string, events: Event[], shownKey?: string): Promise<Answer>;
  /** What the log holds at a sequence. */
  read(sequence: number): Promise<Event[]>;
}

async function withPeer(peer: Peer, use: (subject: Subject) => Promise<void>): Promise<void> {
  await withNats(async (nats) => {
    await createPeerStream(nats.nc, stream, 64 * 1024 * 1024);
    let running: RunningPeer;
    try {
      running = await startPeer(peer, { natsUrl: nats.url, stream, tenant, key });
    } catch (error) {
      if (!(error instanceof GoMissing)) throw error;
      process.stderr.write(`${peer.name}: ${error.message}\n`);
      return;
    }
    const { url } = running;
    const [send, read] = speaking(peer, nats);
    try {
      await use({
        nats,
        url,
        send: (batchId, events, shown = key) => send(url, shown, batchId, events),
        read: async (sequence) => read(await payloadAt(nats.nc, sequence)),
      });
    } finally {
      await running.close();
    }
  });
}

type Send = (url: string, shown: string, batchId: string, events: Event[]) => Promise<Answer>;
type Read = (payload: Uint8Array) => Event[];

function speaking({ protocol }: Peer, nats: TestNats): readonly [Send, Read] {
  if (protocol === 'json') return [sendJson, readJson];
  if (protocol === 'grpc-stream') return [sendStream, readProtobuf];
  const send: Send = async (url, shown, batchId, events) => {
    const message = await exportOnce(url, shown, encodeLogs({ batchId, attempt: 1, sentAt: new Date(), events }));
    const answer = exportLogs.accepted(message, { slot: 0, number: 0, events: events.length });
    assert.is(answer?.rejected, 0);
    // OTLP's answer names no place: the newest message is it.
    const { state } = await (await jetstreamManager(nats.nc)).streams.info(stream);
    return { accepted: answer?.accepted ?? 0, rejections: [], sequence: state.last_seq };
  };
  return [send, (payload) => readLogs(payload).events];
}

/** By a gRPC library. @throws Error with another status than 0 */
function exportOnce(url: string, shown: string, request: Uint8Array): Promise<Buffer> {
  const client = new Client(new URL(url).host, credentials.createInsecure());
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${shown}`);
  const asIs = (bytes: Uint8Array) => Buffer.from(bytes);
  return new Promise<Buffer>((resolve, reject) => {
    client.makeUnaryRequest(exportLogs.path, asIs, asIs, request, metadata, (error, answer) => {
      if (error !== null || answer === undefined) reject(error ?? new Error('no answer'));
      else resolve(answer);
    });
  }).finally(() => client.close());
}

async function payloadAt(nc: NatsConnection, seq: number): Promise<Uint8Array> {
  const message = await (await jetstreamManager(nc)).streams.getMessage(stream, { seq });
  assert.is(message?.subject, `${stream}.${tenant}`);
  return message?.data ?? new Uint8Array(0);
}

async function sendJson(url: string, shown: string, batchId: string, events: Event[]): Promise<Answer> {
  const answer = await fetch(`${url}/v1/events/batch`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${shown}` },
    body: JSON.stringify({ batchId, attempt: 1, sentAt: '2026-01-02T03:04:05Z', events: events.map(plainJson) }),
  });
  const text = await answer.text();
  if (answer.status !== 202) throw new Error(`${answer.status} ${text}`);
  const body = JSON.parse(text) as Omit<Answer, 'sequence'> & { batchId: string; position?: { sequence: number } };
  assert.is(body.batchId, batchId);
  return { accepted: body.accepted, rejections: body.rejections, sequence: body.position?.sequence };
}

async function sendStream(url: string, shown: string, batchId: string, events: Event[]): Promise<Answer> {
  const transport = createGrpcTransport({ baseUrl: url });
  async function* requests() {
    yield { batchId, attempt: 1, batch: create(EventBatchSchema, { events }) };
  }
  const headers = { authorization: `Bearer ${shown}` };
  for await (const { message } of createClient(IngestService, transport).publishStream(requests(), { headers })) {
    if (message.case !== 'accepted') continue;
    const { accepted, position, rejections } = message.value;
    assert.is(message.value.batchId, batchId);
    return {
      accepted,
      sequence: position === undefined ? undefined : Number(position.sequence),
      rejections: rejections.map(({ index, field, code }) => ({ index, field, code: RejectionCode[code] })),
    };
  }
  throw new Error('the stream ended without an answer');
}

function readJson(payload: Uint8Array): Event[] {
  const body = JSON.parse(Buffer.from(payload).toString()) as JsonObject;
  assert.is(body.tenant, tenant);
  const { events } = (body.request ?? body) as { events: JsonObject[] };
  return events.map((event) => fromJson(EventSchema, event));
}

function readProtobuf(payload: Uint8Array): Event[] {
  const reader = new BinaryReader(payload);
  const stored = fromBinary(StoredBatchSchema, reader.bytes());
  assert.is(reader.pos, payload.length);
  assert.is(stored.tenant, tenant);
  return stored.events;
}

/** Equal whatever the order of a map's entries. */
const comparable = (events: Event[]): unknown[] => events.map((event) => toJson(EventSchema, event));

/** A device without a field is no attribute, and so it is for all messages. */
const comparableFields = (events: Event[]): unknown[] =>
  events.map((event) => {
    const entries = Object.entries(toJson(EventSchema, event) as JsonObject);
    return Object.fromEntries(entries.filter(([, value]) => JSON.stringify(value) !== '{}'));
  });

/** Every kind of fault that both JSON and Protobuf can carry. */
const faults: readonly ((event: Event) => void)[] = [
  (event) => (event.eventId = ''),
  (event) => (event.eventId = 'x'.repeat(65)),
  (event) => (event.eventId = 'has blank'),
  (event) => (event.type = EventType.UNSPECIFIED),
  (event) => delete event.occurredAt,
  (event) => (event.occurredAt = { $typeName: 'google.protobuf.Timestamp', seconds: 7_258_118_400n, nanos: 0 }),
  (event) => (event.occurredAt = { $typeName: 'google.protobuf.Timestamp', seconds: -1n, nanos: 0 }),
  (event) => (event.name = 'line\nbreak'),
  // 129 bytes in 43 characters: lengths are bytes.
  (event) => (event.name = '你'.repeat(43)),
  (event) => (event.userId = 'u'.repeat(257)),
  (event) => (event.anonymousId = 'a'.repeat(257)),
  (event) => (event.sessionId = 's'.repeat(129)),
  (event) => (event.valueMicros = 1_000_000_000_000_001n),
  (event) => (event.valueMicros = -1_000_000_000_000_001n),
  (event) => (event.currency = 'EU'),
  (event) => (event.currency = 'EURO'),
  (event) => (event.currency = 'eur'),
  (event) => (event.device!.country = 'C'),
  (event) => (event.device!.country = 'CHE'),
  (event) => (event.device!.country = 'ch'),
  (event) => (event.device!.utcOffsetMinutes = 1081),
  (event) => (event.device!.utcOffsetMinutes = -1081),
  (event) => (event.device!.userAgent = 'u'.repeat(1025)),
  (event) => (event.device!.osVersion = 'o'.repeat(65)),
  (event) => (event.device!.locale = 'l'.repeat(36)),
  (event) => (event.touch!.channel = 'tab\t'),
  (event) => (event.touch!.clickId = 'c'.repeat(513)),
  (event) => (event.touch!.costMicros = 1_000_000_000_000_001n),
  (event) => (event.properties = { '': 'x' }),
  (event) => (event.properties = { ['k'.repeat(129)]: 'x' }),
  (event) => (event.properties = { plan: 'p'.repeat(4097) }),
  (event) => (event.properties = Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, 'v']))),
  (event) => (event.metrics = Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, 1]))),
  (event) => (event.metrics = { ['k'.repeat(129)]: 1 }),
  (event) =>
    (event.page = { $typeName: 'sluice.event.v1.Page', url: '', path: '', title: '', referrer: '', status: 1000 }),
  (event) =>
    (event.page = {
      $typeName: 'sluice.event.v1.Page',
      url: 'u'.repeat(4097),
      path: '',
      title: '',
      referrer: '',
      status: 0,
    }),
  (event) => (event.app = { $typeName: 'sluice.event.v1.App', id: '', version: 'v'.repeat(65), build: '', sdk: '' }),
];
/** JSON has no text for these, or our plain form is made of names that a Protobuf library must know. */
const wireFaults: readonly ((event: Event) => void)[] = [
  (event) => (event.type = 99 as EventType),
  (event) => (event.device!.platform = 77 as Platform),
  (event) => (event.metrics = { ratio: Number.NaN }),
];

/** Our messages cut long keys. */
const shortKey = (field: string): string => field.replace(/k{64,}…?/, 'kkk…');

for (const peer of peers) {
  test(`${peer.name} stores what it is sent, and says where`, async () => {
    await withPeer(peer, async ({ send, read }) => {
      const random = createRandom(3);
      const plain = makeBatch(random, 200).events;
      const rich = Array.from({ length: 100 }, () => makeRichEvent(random));
      for (const [name, events] of Object.entries({ plain, rich })) {
        const { accepted, rejections, sequence } = await send(`b-${name}`, events);
        assert.equal(rejections, []);
        assert.is(accepted, events.length);
        const form = peer.protocol === 'otlp' ? comparableFields : comparable;
        assert.equal(form(await read(sequence ?? 0)), form(events));
      }
    });
  });

  test(`${peer.name} says nothing before the log has the batch, and nothing to strangers`, async () => {
    await withPeer(peer, async ({ nats, send }) => {
      const { events } = makeBatch(createRandom(5), 10);
      await send('b-first', events);
      await freeze(nats.process());
      let answered = false;
      const waiting = send('b-second', events).then((answer) => {
        answered = true;
        return answer;
      });
      try {
        await new Promise((resolve) => setTimeout(resolve, 400));
        assert.is(answered, false);
      } finally {
        nats.process().kill('SIGCONT');
      }
      assert.is((await waiting).sequence, 2);
      let refused: unknown;
      await send('b-third', events, 'wrong').catch((error: unknown) => {
        refused = error;
      });
      assert.match(String(refused), /the key is not known/);
      assert.is((await (await jetstreamManager(nats.nc)).streams.info(stream)).state.messages, 2);
    });
  });

  // OTLP has no rules for what a record holds.
  if (peer.protocol === 'otlp') continue;
  test(`${peer.name} refuses the events that our scanner refuses, by index, field and code`, async () => {
    await withPeer(peer, async ({ send, read }) => {
      const random = createRandom(4);
      const events: Event[] = [];
      for (const fault of peer.protocol === 'json' ? faults : [...faults, ...wireFaults]) {
        const good = makeEvent(random, events.length);
        const bad = clone(EventSchema, good);
        fault(bad);
        events.push(good, bad);
      }
      const scan = scanBatch(encodeBatch(create(EventBatchSchema, { events })), { maxEvents: 10_000 });
      const line = (index: number, field: string, code: string) => `${index} ${shortKey(field)} ${code}`;
      // A time is one text in JSON.
      const fieldOf = (field: string) => (peer.protocol === 'json' ? field.replace(/_at\.seconds$/, '_at') : field);
      const expected = scan.rejections.map(({ index, field, code }) =>
        line(index, fieldOf(field), RejectionCode[code]),
      );
      assert.is(expected.length, events.length / 2);
      const { accepted, rejections, sequence } = await send('b-faults', events);
      assert.equal(
        rejections.map(({ index, field, code }) => line(index, field, code)),
        expected,
      );
      assert.is(accepted, events.length / 2);
      const valid = events.filter((_, i) => i % 2 === 0);
      assert.equal(comparable(await read(sequence ?? 0)), comparable(valid));
      const none = await send('b-none', [events[1]!]);
      assert.equal([none.accepted, none.sequence], [0, undefined]);
    });
  });
}

/** Runs the load against a peer that takes OTLP until `batches` are acknowledged, or it cannot go on. */
const load = (url: string, shown: string, batches: number): Promise<Generator> =>
  drive({
    messages: [1, 2, 3].map((seed) => prepareOtlp({ events: 500, seed })),
    batches,
    open: (to) => sendUnary({ url, key: shown, protocol: 'grpc', connections: 2 }, exportLogs, to),
  });

for (const peer of peers.filter(({ protocol }) => protocol === 'otlp')) {
  test(`${peer.name} has one message for each of the load's batches, which all are its own, and none of a stranger`, async () => {
    await withPeer(peer, async ({ nats, url, read }) => {
      const { error, total } = await load(url, key, 100);
      assert.is(error, undefined);
      assert.equal([total.acked, total.resends, total.rejected], [total.batches * 500, 0, 0]);
      const { state } = await (await jetstreamManager(nats.nc)).streams.info(stream);
      assert.is(state.messages, total.batches);
      const ids = new Set<string>();
      for (let sequence = 1; sequence <= 20; sequence++) {
        for (const { eventId } of await read(sequence)) ids.add(eventId);
      }
      assert.is(ids.size, 20 * 500);
      assert.match(String((await load(url, 'wrong', 1)).error), /status 16 the key is not known/);
      assert.is((await (await jetstreamManager(nats.nc)).streams.info(stream)).state.messages, total.batches);
    });
  });
}

test('a batch of the plain JSON form is what Protobuf reads as the same batch', () => {
  const random = createRandom(6);
  for (let i = 0; i < 300; i++) {
    const event = makeRichEvent(random);
    const read = fromJson(EventSchema, JSON.parse(JSON.stringify(plainJson(event))) as JsonObject);
    assert.equal(comparable([read]), comparable([event]));
  }
});

test.run();
