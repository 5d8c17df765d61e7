// The browser's clients of `npm run interop`: connect-web and grpc-web, case by case. The task comes in the address, as JSON; each case is
// posted to /told as one line of JSON. See interop/cases.ts.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampNow } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';
import { GrpcWebClientBase, MethodDescriptor, MethodType, type RpcError, StatusCode } from 'grpc-web';
import { type Event, EventSchema, EventType } from './gen/sluice/event/v1/event_pb.js';
import {
  IngestService,
  type PublishRequest,
  PublishRequestSchema,
  type PublishResponse,
  PublishResponseSchema,
} from './gen/sluice/ingest/v1/ingest_pb.js';

interface Task {
  readonly client: string;
  readonly address: string;
  readonly swallow: string;
  readonly key: string;
  readonly wrongKey: string;
  readonly run: string;
  readonly floodCalls: number;
  readonly floodRefused: number;
  readonly oversizeBytes: number;
  readonly restartMillis: number;
  readonly cases: readonly string[];
}

interface CaseOutcome {
  readonly accepted: number;
  readonly refused: number;
  readonly code: string;
  readonly note: string;
}

type Publish = (address: string, key: string, request: PublishRequest) => Promise<PublishResponse>;

const withinMs = 60_000;

const upperSnake = (name: string): string => name.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase();

function connectWeb(make: typeof createConnectTransport): Publish {
  return (address, key, request) => {
    const client = createClient(IngestService, make({ baseUrl: `http://${address}`, useBinaryFormat: true }));
    return client.publish(request, { headers: { authorization: `Bearer ${key}` }, timeoutMs: withinMs });
  };
}

function grpcWeb(format: 'text' | 'binary'): Publish {
  const name = '/sluice.ingest.v1.IngestService/Publish';
  const method = new MethodDescriptor<PublishRequest, PublishResponse>(
    name,
    MethodType.UNARY,
    Object as never,
    Object as never,
    (request) => toBinary(PublishRequestSchema, request),
    (bytes) => fromBinary(PublishResponseSchema, bytes),
  );
  const client = new GrpcWebClientBase({ format });
  return (address, key, request) => {
    const headers = { authorization: `Bearer ${key}`, deadline: String(Date.now() + withinMs) };
    return client.unaryCall(`http://${address}${name}`, request, headers, method);
  };
}

const clients: Readonly<Record<string, () => Publish>> = {
  'connect-web': () => connectWeb(createConnectTransport),
  'connect-web-grpc-web': () => connectWeb(createGrpcWebTransport),
  'grpc-web-text': () => grpcWeb('text'),
  'grpc-web-binary': () => grpcWeb('binary'),
};

function codeOf(error: unknown): string {
  if (error instanceof ConnectError) return upperSnake(Code[error.code] ?? '');
  const { code } = error as RpcError;
  return Object.entries(StatusCode).find(([, value]) => value === code)?.[0] ?? String(error);
}

async function call(publish: Publish, address: string, key: string, request: PublishRequest): Promise<CaseOutcome> {
  try {
    const { result } = await publish(address, key, request);
    return {
      accepted: result?.accepted ?? 0,
      refused: result?.rejected ?? 0,
      code: '',
      note: (result?.rejections ?? []).map(({ index, field }) => `${index} ${field}`).join(' '),
    };
  } catch (error) {
    return { accepted: 0, refused: 0, code: codeOf(error), note: String((error as Error).message) };
  }
}

const event = (eventId: string, padding = 0): Event =>
  create(EventSchema, {
    eventId,
    type: EventType.CLICK,
    occurredAt: timestampNow(),
    properties: { padding: 'x'.repeat(padding) },
  });

/** `attempt` is left out: a browser repeats requests on its own as well. */
const request = (batchId: string, ...events: readonly Event[]): PublishRequest =>
  create(PublishRequestSchema, { batchId, batch: { events: [...events] } });

const oversize = (id: string, bytes: number): PublishRequest =>
  request(id, ...Array.from({ length: Math.ceil(bytes / 4_000) }, (_, i) => event(`${id}-${i}`, 4_000)));

async function flood(publish: Publish, task: Task, id: string): Promise<CaseOutcome> {
  const { address, key, wrongKey, floodCalls, floodRefused, oversizeBytes } = task;
  const every = floodCalls / floodRefused;
  const large = oversize(`${id}-large`, oversizeBytes);
  const calls: Promise<CaseOutcome & { want: string }>[] = [];
  const start = async (callKey: string, message: PublishRequest, want: string) => ({
    ...(await call(publish, address, callKey, message)),
    want,
  });
  for (let i = 0; i < floodCalls; i++) {
    calls.push(start(key, request(`${id}-${i}`, event(`${id}-${i}`, 200)), ''));
    if (i % every !== 0) continue;
    if ((i / every) % 2 === 0)
      calls.push(start(wrongKey, request(`${id}-${i}-key`, event(`${id}-${i}-key`, 4_000)), 'UNAUTHENTICATED'));
    else calls.push(start(key, large, 'INVALID_ARGUMENT'));
  }
  const answers = await Promise.all(calls);
  const wrong = answers.find(({ code, want }) => code !== want);
  return {
    accepted: answers.reduce((sum, { accepted }) => sum + accepted, 0),
    refused: answers.filter(({ code }) => code !== '').length,
    code: wrong === undefined ? '' : 'WRONG',
    note: wrong === undefined ? '' : `wanted ${wrong.want || 'success'}, got ${wrong.code}: ${wrong.note}`,
  };
}

/** Sends the same request again until it is answered. */
async function insist(publish: Publish, address: string, key: string, message: PublishRequest): Promise<CaseOutcome> {
  for (let sends = 1; ; sends++) {
    const outcome = await call(publish, address, key, message);
    if (outcome.code === '' || sends === 200) return { ...outcome, note: `sent ${sends} times` };
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function restart(publish: Publish, { address, key, restartMillis }: Task, id: string): Promise<CaseOutcome> {
  const end = performance.now() + restartMillis;
  let accepted = 0;
  const lane = async (number: number): Promise<void> => {
    for (let i = 0; performance.now() < end; i++) {
      // Not `accepted += (await …)`: that reads the sum before it waits, and loses what the others add.
      const answer = await insist(
        publish,
        address,
        key,
        request(`${id}-${number}-${i}`, event(`${id}-${number}-${i}`, 100)),
      );
      accepted += answer.accepted;
    }
  };
  await Promise.all(Array.from({ length: 4 }, (_, number) => lane(number)));
  return { accepted, refused: 0, code: '', note: '' };
}

function answer(name: string, publish: Publish, task: Task): Promise<CaseOutcome> {
  const { address, key } = task;
  const id = `${task.run}-${name}`;
  switch (name) {
    case 'unary':
      return call(publish, address, key, request(id, event(`${id}-1`), event(`${id}-2`)));
    case 'wrong-key':
      return call(publish, address, task.wrongKey, request(id, event(`${id}-1`)));
    case 'bad-event': {
      const bad = create(EventSchema, { ...event(`${id}-bad`), currency: 'euro' });
      return call(publish, address, key, request(id, event(`${id}-1`), bad));
    }
    case 'too-large':
      return call(publish, address, key, oversize(id, task.oversizeBytes));
    case 'retry':
      return insist(publish, task.swallow, key, request(id, event(`${id}-1`)));
    case 'flood':
      return flood(publish, task, id);
    default:
      return restart(publish, task, id);
  }
}

const tell = (value: unknown): Promise<unknown> => fetch('/told', { method: 'POST', body: JSON.stringify(value) });

try {
  const task: Task = JSON.parse(new URLSearchParams(location.search).get('task') ?? '');
  const publish = clients[task.client]?.();
  if (publish === undefined) throw new Error(`no client ${task.client}`);
  for (const name of task.cases) {
    if (name === 'drain' || name === 'kill') await tell({ case: name, started: true });
    await tell({ case: name, ...(await answer(name, publish, task)) });
  }
  await tell('done');
} catch (error) {
  await tell(`error: ${error}`);
}
