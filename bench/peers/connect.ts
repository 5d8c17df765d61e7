/**
 * Peer (b): the same PublishStream on connect-node, as the library is meant to be used. Every message is decoded by
 * protobuf-es, checked as objects, and encoded again as a StoredBatch.
 */
import { createServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { create } from '@bufbuild/protobuf';
import { configureTextEncoding, getTextEncoding, sizeDelimitedEncode } from '@bufbuild/protobuf/wire';
import { timestampNow } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import {
  type BatchResult,
  BatchResultSchema,
  IngestService,
  type PublishStreamRequest,
  type PublishStreamResponse,
  PublishStreamResponseSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { MiB } from '../../lib/units.js';
import { compileChecks, judge } from './object-checks.js';
import type { PeerLog } from './peer-log.js';

export interface ServeOptions {
  readonly log: PeerLog;
  readonly tenant: string;
  readonly key: string;
}

/** Most batches of one stream that wait for the log. */
const window = 64;

export async function serveConnect(options: ServeOptions): Promise<number> {
  const { log, tenant, key } = options;
  const check = compileChecks();
  // Node's TextEncoder is slow with short texts: encoding takes a third less like this.
  configureTextEncoding({ ...getTextEncoding(), encodeUtf8: (text) => Buffer.from(text) });

  const store = async (request: PublishStreamRequest): Promise<BatchResult> => {
    const { valid, rejections } = judge(check, request.batch?.events ?? []);
    const { batchId, attempt, sentAt } = request;
    const result = create(BatchResultSchema, { batchId, accepted: valid.length, rejected: rejections.length });
    for (const rejection of rejections.slice(0, 100)) {
      result.rejections.push({ $typeName: 'sluice.ingest.v1.Rejection', ...rejection });
    }
    if (valid.length === 0) return result;
    const stored = create(StoredBatchSchema, { tenant, batchId, attempt, receivedAt: timestampNow() });
    if (sentAt !== undefined) stored.sentAt = sentAt;
    stored.events = valid;
    stored.eventCount = valid.length;
    stored.rejectedCount = rejections.length;
    const sequence = await log.append(sizeDelimitedEncode(StoredBatchSchema, stored));
    result.position = {
      $typeName: 'sluice.ingest.v1.LogPosition',
      stream: log.stream,
      shard: 0,
      sequence: BigInt(sequence),
    };
    return result;
  };

  async function* publishStream(requests: AsyncIterable<PublishStreamRequest>): AsyncGenerator<PublishStreamResponse> {
    const done: BatchResult[] = [];
    let open = 0;
    let ended = false;
    let failure: unknown;
    let wakeReader = () => {};
    let wakeWriter = () => {};
    const reading = (async () => {
      for await (const request of requests) {
        while (open >= window) await new Promise<void>((resolve) => (wakeReader = resolve));
        open++;
        store(request).then(
          (result) => {
            done.push(result);
            wakeWriter();
          },
          (error: unknown) => {
            failure = error;
            wakeWriter();
          },
        );
      }
    })();
    reading
      .catch((error: unknown) => {
        failure = error;
      })
      .finally(() => {
        ended = true;
        wakeWriter();
      });
    for (;;) {
      for (const result of done.splice(0)) {
        open--;
        wakeReader();
        yield create(PublishStreamResponseSchema, { message: { case: 'accepted', value: result } });
      }
      if (failure !== undefined) throw failure;
      if (done.length > 0) continue;
      if (ended && open === 0) return;
      await new Promise<void>((resolve) => (wakeWriter = resolve));
    }
  }

  const handler = connectNodeAdapter({
    readMaxBytes: 8 * MiB,
    acceptCompression: [],
    routes: (router) => {
      router.rpc(IngestService.method.publishStream, (requests, context) => {
        if (context.requestHeader.get('authorization') !== `Bearer ${key}`) {
          throw new ConnectError('the key is not known', Code.Unauthenticated);
        }
        return publishStream(requests);
      });
    },
  });
  // Default windows of 64 KiB would stall every batch; no installation runs it like that.
  const server = createServer({ settings: { initialWindowSize: MiB } }, handler);
  server.on('session', (session) => session.setLocalWindowSize(4 * MiB));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}
