/**
 * From a node request to the RPC library's handler and back. In place of connect-node's own adapter, because that one
 * writes to the console, throws on a request without an authority, and lets a far-away deadline wrap around.
 */
import { Code, ConnectError, createContextValues } from '@connectrpc/connect';
import type { UniversalHandlerFn } from '@connectrpc/connect/protocol';
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from '@connectrpc/connect-node';
import type { Log } from '../lib/log.js';
import { type Connection, connectionKey } from './connection.js';
import type { NodeRequest, NodeResponse } from './server.js';

export type RequestHandler = (request: NodeRequest, response: NodeResponse, connection: Connection) => void;

/** @param routes handlers by path; other paths go to `fallback` */
export function createRpcAdapter(
  routes: ReadonlyMap<string, UniversalHandlerFn>,
  fallback: RequestHandler,
  log: Log,
): RequestHandler {
  return (request, response, connection) => {
    const url = request.url ?? '';
    const query = url.indexOf('?');
    const handler = routes.get(query < 0 ? url : url.slice(0, query));
    if (handler === undefined) return fallback(request, response, connection);
    const run = async (): Promise<void> => {
      dropEndlessTimeout(request);
      const values = createContextValues().set(connectionKey, connection);
      const universal = universalRequestFromNodeRequest(request, response as never, undefined, values);
      await universalResponseToNodeResponse(await handler(universal), response as never);
    };
    run().catch((reason: unknown) => {
      // Callers go away at any time; that is no news.
      const code = ConnectError.from(reason).code;
      if (code !== Code.Aborted && code !== Code.Canceled) log.debug({ err: reason, url }, 'call ended badly');
      if (!response.headersSent) response.writeHead(400);
      if (!response.writableEnded) response.end();
    });
  };
}

/** What setTimeout can do, ms; anything later would fire at once. */
const farthest = 2 ** 31 - 1;
const grpcUnits: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** A deadline more than 24 days away is none. */
function dropEndlessTimeout(request: NodeRequest): void {
  const { headers } = request;
  const grpc = headers['grpc-timeout'];
  if (typeof grpc === 'string' && Number(grpc.slice(0, -1)) * (grpcUnits[grpc.slice(-1)] ?? 0) > farthest) {
    delete headers['grpc-timeout'];
  }
  const connect = headers['connect-timeout-ms'];
  if (typeof connect === 'string' && Number(connect) > farthest) delete headers['connect-timeout-ms'];
}
