/** @grpc/grpc-js, with its own retries: the one gRPC library that npm alone brings. */

import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { timestampNow } from '@bufbuild/protobuf/wkt';
import {
  type ChannelOptions,
  Client,
  compressionAlgorithms,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { type Event, EventBatchSchema, EventSchema, EventType } from '#gen/sluice/event/v1/event_pb.js';
import {
  type PublishRequest,
  PublishRequestSchema,
  type PublishResponse,
  PublishResponseSchema,
  PublishStreamRequestSchema,
  PublishStreamResponseSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import { type CaseName, type CaseOutcome, libraryCases, type Task } from '../cases.js';
import type { ForeignClient, Listener } from './client.js';

type Answer = Omit<CaseOutcome, 'case'>;

const service = '/sluice.ingest.v1.IngestService';
const serviceConfig = JSON.stringify({
  methodConfig: [
    {
      name: [{ service: 'sluice.ingest.v1.IngestService' }],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: '0.1s',
        maxBackoff: '1s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE'],
      },
    },
  ],
});
const callWithinMs = 30_000;

const serialize =
  <D extends DescMessage>(schema: D) =>
  (message: MessageShape<D>): Buffer =>
    Buffer.from(toBinary(schema, message));
const parse =
  <D extends DescMessage>(schema: D) =>
  (bytes: Buffer): MessageShape<D> =>
    fromBinary(schema, bytes);

const event = (eventId: string, padding = 0): Event =>
  create(EventSchema, {
    eventId,
    type: EventType.CLICK,
    occurredAt: timestampNow(),
    properties: { padding: 'x'.repeat(padding) },
  });

/** `attempt` is left out, except where a case says so: what counts retries is the library. */
const request = (batchId: string, events: Event[], attempt = 0): PublishRequest =>
  create(PublishRequestSchema, { batchId, attempt, batch: create(EventBatchSchema, { events }) });

const oversize = (id: string, bytes: number): PublishRequest =>
  request(
    id,
    Array.from({ length: Math.ceil(bytes / 4_000) }, (_, i) => event(`${id}-${i}`, 4_000)),
  );

const metadataOf = (key: string): Metadata => {
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${key}`);
  return metadata;
};

const answerOf = (error: ServiceError | null, response?: PublishResponse): Answer => ({
  accepted: response?.result?.accepted ?? 0,
  refused: response?.result?.rejected ?? 0,
  code: error === null ? '' : (status[error.code] ?? String(error.code)),
  note: error?.details ?? response?.result?.rejections.map(({ index, field }) => `${index} ${field}`).join(' ') ?? '',
});

async function withClient<T>(
  address: string,
  use: (client: Client) => Promise<T>,
  more: ChannelOptions = {},
): Promise<T> {
  const client = new Client(address, credentials.createInsecure(), {
    'grpc.service_config': serviceConfig,
    'grpc.keepalive_time_ms': 10_000,
    'grpc.use_local_subchannel_pool': 1,
    ...more,
  });
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

const publish = (client: Client, key: string, message: PublishRequest): Promise<Answer> =>
  new Promise((resolve) => {
    client.makeUnaryRequest(
      `${service}/Publish`,
      serialize(PublishRequestSchema),
      parse(PublishResponseSchema),
      message,
      metadataOf(key),
      { deadline: Date.now() + callWithinMs },
      (error, response) => resolve(answerOf(error, response)),
    );
  });

/** Sends batches, and reads to the stream's end. */
const stream = (
  client: Client,
  key: string,
  batches: readonly PublishRequest[],
  end: boolean,
  withinMs: number,
): Promise<Answer> =>
  new Promise((resolve) => {
    let [accepted, refused] = [0, 0];
    const call = client.makeBidiStreamRequest(
      `${service}/PublishStream`,
      serialize(PublishStreamRequestSchema),
      parse(PublishStreamResponseSchema),
      metadataOf(key),
      { deadline: Date.now() + withinMs },
    );
    call.on('data', ({ message }: MessageShape<typeof PublishStreamResponseSchema>) => {
      if (message.case === 'accepted') accepted += message.value.accepted;
      if (message.case === 'failed') refused++;
    });
    call.once('error', (error: ServiceError) => resolve({ ...answerOf(error), accepted, refused }));
    call.once('end', () => setImmediate(() => resolve({ accepted, refused, code: '', note: '' })));
    for (const { batchId, batch } of batches)
      call.write(create(PublishStreamRequestSchema, batch === undefined ? { batchId } : { batchId, batch }));
    if (end) call.end();
  });

const pair = (id: string, padding = 0): PublishRequest =>
  request(id, [event(`${id}-1`, padding), event(`${id}-2`, padding)]);

/** All calls at once on one connection. Half of those to be refused have a wrong key, half are too large. */
function flood({ key, wrongKey, floodCalls, floodRefused, oversizeBytes, address }: Task, id: string): Promise<Answer> {
  return withClient(address, async (client) => {
    const large = oversize(`${id}-large`, oversizeBytes);
    const every = floodCalls / floodRefused;
    const calls: Promise<Answer & { readonly want: string }>[] = [];
    const start = async (callKey: string, message: PublishRequest, want: string) => ({
      ...(await publish(client, callKey, message)),
      want,
    });
    for (let i = 0; i < floodCalls; i++) {
      calls.push(start(key, request(`${id}-${i}`, [event(`${id}-${i}`, 200)]), ''));
      if (i % every !== 0) continue;
      if ((i / every) % 2 === 0)
        calls.push(start(wrongKey, request(`${id}-${i}-key`, [event(`${id}-${i}-key`, 4_000)]), 'UNAUTHENTICATED'));
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
  });
}

/** Calls go on while the gateway is replaced or killed. A call that fails is made again, until it is answered. */
function restart({ key, address, restartMillis }: Task, id: string): Promise<Answer> {
  const end = performance.now() + restartMillis;
  let [accepted, again] = [0, 0];
  const odd = new Set<string>();
  const lane = async (client: Client, number: number): Promise<void> => {
    for (let i = 0; performance.now() < end; i++) {
      const message = request(`${id}-${number}-${i}`, [event(`${id}-${number}-${i}`, 100)]);
      for (;;) {
        const answer = await publish(client, key, message);
        accepted += answer.accepted;
        if (answer.code === '') break;
        again++;
        if (answer.code !== 'UNAVAILABLE') odd.add(`${answer.code}: ${answer.note}`);
        if (performance.now() > end + callWithinMs) return;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  return withClient(
    address,
    async (client) => {
      await Promise.all(Array.from({ length: 8 }, (_, number) => lane(client, number)));
      return { accepted, refused: 0, code: '', note: [`${again} calls made again`, ...odd].join('; ') };
    },
    { 'grpc.max_reconnect_backoff_ms': 500 },
  );
}

const gzip = { 'grpc.default_compression_algorithm': compressionAlgorithms.gzip } as ChannelOptions;

function answer(name: CaseName, task: Task): Promise<Answer> {
  const { address, key } = task;
  const id = `${task.run}-${name}`;
  switch (name) {
    case 'unary':
      return withClient(address, (client) => publish(client, key, pair(id)));
    case 'gzip':
      return withClient(address, (client) => publish(client, key, pair(id, 2_000)), gzip);
    case 'wrong-key':
      return withClient(address, (client) => publish(client, task.wrongKey, pair(id)));
    case 'bad-event': {
      const bad = create(EventSchema, { ...event(`${id}-bad`), currency: 'euro' });
      return withClient(address, (client) => publish(client, key, request(id, [event(`${id}-1`), bad])));
    }
    case 'too-large':
      return withClient(address, (client) => publish(client, key, oversize(id, task.oversizeBytes)));
    case 'stream': {
      const batches = Array.from({ length: 300 }, (_, i) => pair(`${id}-${i}`, 4_000));
      return withClient(address, (client) => stream(client, key, batches, true, callWithinMs));
    }
    case 'deadline':
      return withClient(address, (client) => stream(client, key, [request(id, [event(`${id}-1`)])], false, 2_000));
    case 'retry':
      return withClient(task.swallow, (client) => publish(client, key, request(id, [event(`${id}-1`)], 1)));
    case 'flood':
      return flood(task, id);
    case 'drain':
    case 'kill':
      return restart(task, id);
    case 'snippet':
      throw new Error('a library has no program on the page');
  }
}

export const grpcJsClient: ForeignClient = {
  name: 'grpc-js',
  about: 'Node, @grpc/grpc-js',
  cases: libraryCases,
  async prepare() {},
  async run(task: Task, listener: Listener) {
    for (const name of task.cases) {
      if (name === 'drain' || name === 'kill') listener.started(name);
      listener.outcome({ case: name, ...(await answer(name, task)) });
    }
  },
};
