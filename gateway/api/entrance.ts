/**
 * Where calls come in: what is wrong with their headers is answered here, strangers are counted, and single calls wait for a seat.
 */
import { SluiceError } from '../../lib/errors.js';
import { isStrangers, type TenantDirectory } from '../../lib/tenants.js';
import { answerError } from '../errors/http-answers.js';
import { toConnectError } from '../errors/rpc-errors.js';
import type { Held } from '../held/held.js';
import { RequestInput } from '../held/request-input.js';
import { resetWhenAnswered } from '../listener/answered-early.js';
import type { Connection } from '../listener/connection.js';
import type { Cors } from '../listener/cors.js';
import { headerFault } from '../listener/header-limits.js';
import type { NodeRequest, NodeResponse } from '../listener/node-request.js';
import type { FrontServerOptions } from '../listener/server.js';
import type { GatewayMetrics } from '../metrics.js';
import { passInTime } from './call-timeout.js';
import type { HotHandler } from './hot/handler.js';
import { refuseCall } from './hot/protocols.js';
import type { RequestHandler } from './rpc-adapter.js';
import type { RpcRoute } from './rpc-route.js';

const singleBatchPath = /^\/(?:sluice\.ingest\.v1\.IngestService\/Publish|v1\/events(?:\/batch)?)(?:\?|$)/;
/** Messages come whenever their client likes. */
const isStream = (url: string): boolean => /\/(?:PublishStream|ServerReflectionInfo)$/.test(url);
const tooManyRefused = (): SluiceError =>
  new SluiceError(
    'too_many_refusals',
    'Too many requests on this connection had no valid key, had nothing at their path, or were probes or preflights: the connection ends.',
    { retryAfterMs: 5_000 },
  );
const isSingleBatch = (url: string): boolean => singleBatchPath.test(url);

export interface EntranceOptions {
  readonly tenants: Pick<TenantDirectory, 'lookup'>;
  readonly metrics: Pick<GatewayMetrics, 'failed'>;
  readonly held: Pick<Held, 'unfinished' | 'gate'>;
  readonly cors: Cors;
  readonly routes: ReadonlyMap<string, RpcRoute>;
  /** Serves a call on Node's request objects. */
  readonly handle: RequestHandler;
  /** Serves some calls on bare HTTP/2 streams; undefined: none. */
  readonly hot: HotHandler | undefined;
}

export type Entrance = Required<Pick<FrontServerOptions, 'onRequest' | 'onStream'>>;

export function createEntrance(options: EntranceOptions): Entrance {
  const { tenants, metrics, held, cors, routes, handle, hot } = options;

  /**
   * Whether a call without a key brings nothing: it is refused, there is nothing at its path, or it is a probe. Each probe costs 0.1 ms,
   * and a balancer asks a few times a second. Open RPCs have bounds of their own (open-routes.ts).
   */
  const bringsNothing = (url: string): boolean => routes.get(url.split('?', 1)[0] ?? '')?.open !== true;

  /**
   * Who calls on Node's request objects. `tenant` undefined: a stranger, or the keys have not been read.
   * @throws SluiceError too_many_refusals: strangers have made too many calls on this connection, and it ends
   */
  const admitCaller = ({ headers, url = '' }: NodeRequest, connection: Connection): string | undefined => {
    try {
      const { tenant } = tenants.lookup(headers.authorization);
      connection.known();
      return tenant;
    } catch (reason) {
      if (isStrangers(reason) && bringsNothing(url) && !connection.refused()) throw tooManyRefused();
      return undefined;
    }
  };

  const refuse = (response: NodeResponse, error: SluiceError): void => {
    metrics.failed(error.code);
    answerError(response, error);
  };

  return {
    onRequest(request, response, connection) {
      // A browser asks once in two hours. It shows no key, so others with a key keep the connection (CONN-4).
      if (cors.isPreflight(request) && !connection.refused()) return refuse(response, tooManyRefused());
      if (cors.answer(request, response)) return;
      const fault = headerFault(request.rawHeaders);
      if (fault !== undefined) {
        connection.refused();
        return refuse(response, fault);
      }
      let tenant: string | undefined;
      try {
        tenant = admitCaller(request, connection);
      } catch (reason) {
        return refuse(response, reason as SluiceError);
      }
      const url = request.url ?? '';
      const input = new RequestInput(request, response, {
        unfinished: held.unfinished,
        tenant: tenant ?? '',
        single: !isStream(url),
        onRefused: ({ code }) => metrics.failed(code),
      });
      // Strangers take no seat: the refusal reads nothing.
      if (tenant === undefined || !isSingleBatch(url)) return handle(request, response, connection, input);
      passInTime(held.gate, request, response, input, () => handle(request, response, connection, input));
    },
    onStream(stream, headers, connection, rawHeaders) {
      const malformed = headerFault(rawHeaders);
      const served = malformed === undefined ? hot?.(stream, headers, connection) : undefined;
      if (served !== undefined) return served;
      const fault = malformed ?? routes.get(headers[':path'] ?? '')?.refusal?.(connection);
      if (fault === undefined) return undefined;
      stream.on('error', () => {});
      if (!refuseCall(stream, headers['content-type'], toConnectError(fault))) return undefined;
      connection.refused();
      resetWhenAnswered(stream);
      metrics.failed(fault.code);
      return { closed: () => {} };
    },
  };
}
