/**
 * A gateway of a test's own, on a real port: serves IngestService with connect-node and does what the script says. It
 * reads requests with the generated types, so that what it understands is what any gateway would.
 */
import { createServer, type Http2Server, type ServerHttp2Session } from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { HandlerContext } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import {
  IngestService,
  type PublishStreamRequest,
  type PublishStreamResponseSchema,
} from '../../gen/sluice/ingest/v1/ingest_pb.js';

type Answer = MessageInitShape<typeof PublishStreamResponseSchema>;

/** Serves one stream. `number` counts the streams from 0. */
export type Script = (
  requests: AsyncIterable<PublishStreamRequest>,
  context: HandlerContext,
  number: number,
) => AsyncIterable<Answer>;

export interface Peer {
  readonly url: string;
  /** Ends every connection, as a crash does. */
  disconnect(): void;
  /** Ends the server; `restart` brings it back on the same port. */
  stop(): Promise<void>;
  restart(): Promise<void>;
}

export const limits: Answer = {
  message: {
    case: 'limits',
    value: { maxBatchBytes: 1 << 20, maxBatchEvents: 10_000, maxStreamBytesInFlight: 8 << 20, contract: 'test' },
  },
};

export const accepted = (request: PublishStreamRequest): Answer => ({
  message: { case: 'accepted', value: { batchId: request.batchId, accepted: request.batch?.events.length ?? 0 } },
});

/** Runs `use` with a peer, and ends it, also after an error. */
export async function withPeer<T>(script: Script, use: (peer: Peer) => Promise<T>): Promise<T> {
  const sessions = new Set<ServerHttp2Session>();
  let streams = 0;
  let server: Http2Server | undefined;
  const handler = connectNodeAdapter({
    routes: (router) => {
      router.service(IngestService, { publishStream: (requests, context) => script(requests, context, streams++) });
    },
  });
  const start = (port: number): Promise<number> =>
    new Promise((resolve, reject) => {
      const listener = createServer(handler);
      server = listener;
      listener.on('session', (session) => {
        sessions.add(session);
        session.once('close', () => sessions.delete(session));
      });
      listener.once('error', reject);
      listener.listen(port, '127.0.0.1', () => resolve((listener.address() as AddressInfo).port));
    });
  const disconnect = (): void => {
    for (const session of sessions) session.destroy();
  };
  const stop = (): Promise<void> =>
    new Promise((resolve) => {
      disconnect();
      server?.close(() => resolve());
    });
  const port = await start(0);
  try {
    return await use({
      url: `http://127.0.0.1:${port}`,
      disconnect,
      stop,
      restart: async () => {
        await start(port);
      },
    });
  } finally {
    await stop();
  }
}
