/**
 * Peer (c): the same PublishStream on grpc-js with protobufjs, its usual companion: code that protobufjs makes from the
 * .proto files decodes every message; it is checked as objects, and encoded again as a StoredBatch.
 */
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServiceDefinition,
  status,
} from '@grpc/grpc-js';
import { MiB } from '../../lib/units.js';
import type { ServeOptions } from './connect.js';
import { compileChecks, judge } from './object-checks.js';
import { loadProto } from './protobufjs-contract.js';

interface Request {
  readonly batch?: { readonly events: object[] } | null;
  readonly batchId: string;
  readonly attempt: number;
  readonly sentAt?: object | null;
}

/** Most batches of one stream that wait for the log. */
const window = 64;

export async function serveGrpc(options: ServeOptions): Promise<number> {
  const { log, tenant, key } = options;
  const check = compileChecks();
  const root = loadProto();
  const requestType = root.lookupType('sluice.ingest.v1.PublishStreamRequest');
  const responseType = root.lookupType('sluice.ingest.v1.PublishStreamResponse');
  const storedType = root.lookupType('sluice.log.v1.StoredBatch');

  const store = async (request: Request): Promise<object> => {
    const { valid, rejections } = judge(check, request.batch?.events ?? []);
    const { batchId, attempt, sentAt } = request;
    const result = {
      batchId,
      accepted: valid.length,
      rejected: rejections.length,
      rejections: rejections.slice(0, 100),
    };
    if (valid.length === 0) return { accepted: result };
    const now = Date.now();
    const stored = {
      tenant,
      batchId,
      attempt,
      receivedAt: { seconds: Math.floor(now / 1000), nanos: (now % 1000) * 1e6 },
      sentAt,
      events: valid,
      eventCount: valid.length,
      rejectedCount: rejections.length,
    };
    const sequence = await log.append(storedType.encodeDelimited(stored).finish());
    return { accepted: { ...result, position: { stream: log.stream, shard: 0, sequence } } };
  };

  const publishStream = (call: ServerDuplexStream<Request, object>): void => {
    if (call.metadata.get('authorization')[0] !== `Bearer ${key}`) {
      call.emit('error', { code: status.UNAUTHENTICATED, details: 'the key is not known', metadata: new Metadata() });
      return;
    }
    let open = 0;
    let ended = false;
    call.on('data', (request: Request) => {
      if (++open >= window) call.pause();
      store(request).then(
        (answer) => {
          if (call.cancelled) return;
          call.write(answer);
          if (--open < window && call.isPaused()) call.resume();
          if (ended && open === 0) call.end();
        },
        (error: Error) => call.emit('error', { code: status.UNAVAILABLE, details: error.message }),
      );
    });
    call.on('end', () => {
      ended = true;
      if (open === 0) call.end();
    });
    call.on('error', () => undefined);
  };

  const service: ServiceDefinition = {
    PublishStream: {
      path: '/sluice.ingest.v1.IngestService/PublishStream',
      requestStream: true,
      responseStream: true,
      requestSerialize: (value: object) => Buffer.from(requestType.encode(value).finish()),
      requestDeserialize: (bytes: Buffer) => requestType.decode(bytes),
      responseSerialize: (value: object) => {
        const bytes = responseType.encode(value).finish();
        return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
      },
      responseDeserialize: (bytes: Buffer) => responseType.decode(bytes),
    },
  };
  const server = new Server({
    'grpc.max_receive_message_length': 8 * MiB,
    'grpc-node.flow_control_window': 4 * MiB,
  });
  server.addService(service, { PublishStream: publishStream });
  return new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}
