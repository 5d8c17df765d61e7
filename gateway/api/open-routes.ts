/**
 * Bounds of the calls that need no key.
 *
 *   OPEN-1  A call of one message is whole within 10 s (call-timeout.ts).
 *   OPEN-2  Short calls (Check, List) are bounded per connection. Their total is bounded too: the oldest is reset for a new one. The
 *       oldest is one that its client does not finish, so other clients still get their health checks.
 *   OPEN-3  Calls that stay open (Watch, reflection) take a place of their connection, of its address and one in all, before their request
 *       is read. Past any limit they are refused.
 *   OPEN-4  Where there is no place, the call is refused before the RPC library parses it (`refusal`), at a tenth of the cost. A
 *       connection that repeats such calls ends (call-budget.ts).
 */
import {
  create,
  type DescMessage,
  type DescMethodBiDiStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
import type { ContextValues, HandlerContext } from '@connectrpc/connect';
import type { UniversalHandlerOptions } from '@connectrpc/connect/protocol';
import { retryAfter } from '../../lib/back-off.js';
import { type ErrorName, SluiceError } from '../../lib/errors.js';
import { KiB } from '../../lib/units.js';
import { classify } from '../errors/rpc-errors.js';
import { createPlaces, type Places } from '../held/places.js';
import { type Connection, connectionKey, type Exchange, exchangeKey, whenClosed } from '../listener/connection.js';
import { wholeInTime } from './call-timeout.js';
import type { RpcRoute } from './rpc-route.js';
import { createRpcStream } from './rpc-stream.js';
import { createRpcUnary, theOnly } from './rpc-unary.js';

/** Registers methods that anybody may call. Handlers throw what `classify` knows. */
export interface OpenRoutes {
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    handle: (request: MessageShape<I>) => MessageInitShape<O>,
  ): void;
  /** @param places for the calls that are open (OPEN-3) */
  serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    places: Places<Connection>,
    handle: (request: MessageShape<I>, context: HandlerContext) => AsyncIterable<MessageShape<O>>,
  ): void;
  /** @param authorize throws when the caller may not call after all; undefined: anybody may */
  bidiStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    places: Places<Connection>,
    authorize: ((header: Headers) => unknown) | undefined,
    handle: (requests: AsyncIterable<MessageShape<I>>, context: HandlerContext) => AsyncIterable<MessageShape<O>>,
  ): void;
}

export interface OpenRouteOptions {
  readonly library: Partial<UniversalHandlerOptions>;
  readonly add: (
    method: DescMethodUnary | DescMethodServerStreaming | DescMethodBiDiStreaming,
    handler: RpcRoute,
    more: Pick<RpcRoute, 'refusal' | 'open'>,
  ) => void;
  readonly onRefused: (name: ErrorName) => void;
}

/** Most bytes of a request: a name, and what is around it. */
const maxRequestBytes = 4 * KiB;
const maxShortOfConnection = 32;
const maxShort = 1_000;
/** When a place will do again, ms: half of it to one and a half. */
const retryMs = 2_000;

/** One address has at most a quarter of all places, so that it cannot shut out the others. */
const addressShare = 4;

/** Places for open calls of a kind. @param what in the plural, as the error names them */
export function createOpenPlaces(what: string, max: number, maxOfConnection: number): Places<Connection> {
  const refused = (why: string): SluiceError =>
    new SluiceError('too_many_calls', why, { retryAfterMs: retryAfter(retryMs) });
  const places = createPlaces<Connection>({
    max,
    maxOfOne: maxOfConnection,
    refuse: (full) =>
      refused(
        full === 'owner'
          ? `This connection has ${maxOfConnection} open ${what}, and may have no more.`
          : `The gateway has ${max} open ${what}, and takes no more.`,
      ),
  });
  const maxOfAddress = Math.floor(max / addressShare);
  const ofAddress = createPlaces<string>({
    max: Number.POSITIVE_INFINITY,
    maxOfOne: maxOfAddress,
    refuse: () => refused(`The address of this connection has ${maxOfAddress} open ${what}, and may have no more.`),
  });
  const refusal = (connection: Connection): SluiceError | undefined =>
    places.refusal(connection) ??
    (connection.network === undefined ? undefined : ofAddress.refusal(connection.network));
  return {
    refusal,
    take(connection) {
      const why = refusal(connection);
      if (why !== undefined) throw why;
      const leave = places.take(connection);
      const leaveAddress = connection.network === undefined ? undefined : ofAddress.take(connection.network);
      return () => {
        leave();
        leaveAddress?.();
      };
    },
    get taken() {
      return places.taken;
    },
  };
}

export function createOpenRoutes({ library, add, onRefused }: OpenRouteOptions): OpenRoutes {
  const small = { ...library, readMaxBytes: maxRequestBytes };
  const short = createShortCalls();
  const onLate = (): void => onRefused('request_timeout');

  /** The answers of a call that stays open. */
  async function* counted<T>(
    { values, requestHeader }: HandlerContext,
    places: Places<Connection>,
    authorize: (header: Headers) => unknown,
    answers: () => AsyncIterable<T>,
  ): AsyncGenerator<T> {
    try {
      authorize(requestHeader);
      whenClosed(values.get(exchangeKey), takePlace(places, values));
    } catch (reason) {
      const { row } = classify(reason);
      if (row !== undefined) onRefused(row.code);
      throw reason;
    }
    yield* answers();
  }

  return {
    unary(method, answer) {
      const handler = createRpcUnary({
        method,
        library: small,
        authorize: (_header, values) => short.admit(values),
        onRefused,
        handle: async (message) => create(method.output, answer(message as never)),
      });
      add(method, wholeInTime(handler, onLate), { refusal: short.refusal, open: true });
    },
    serverStream(method, places, answer) {
      async function* answers(requests: AsyncIterable<unknown>, context: HandlerContext) {
        yield* answer((await theOnly(requests as never, method.name)) as never, context);
      }
      const handler = createRpcStream({
        method,
        library: small,
        handle: (requests, context) => counted(context, places, anybody, () => answers(requests, context)),
      });
      add(method, wholeInTime(handler, onLate), { refusal: places.refusal, open: true });
    },
    bidiStream(method, places, authorize, answer) {
      const handler = createRpcStream({
        method,
        library: small,
        handle: (requests, context) =>
          counted(context, places, authorize ?? anybody, () => answer(requests as never, context)),
      });
      add(method, handler, { refusal: places.refusal, open: authorize === undefined });
    },
  };
}

const anybody = (): void => {};

/** @throws SluiceError too_many_calls, which counts against the connection */
function takePlace(places: Places<Connection>, values: ContextValues): () => void {
  const connection = values.get(connectionKey);
  try {
    return places.take(connection);
  } catch (reason) {
    connection.refused();
    throw reason;
  }
}

/** OPEN-2. `admit` throws a SluiceError when the connection has too many of them. */
function createShortCalls(): { admit(values: ContextValues): void; refusal: Places<Connection>['refusal'] } {
  const places = createOpenPlaces('health calls', Number.POSITIVE_INFINITY, maxShortOfConnection);
  const open = new Set<Exchange>();
  return {
    refusal: places.refusal,
    admit(values) {
      const exchange = values.get(exchangeKey);
      const leave = takePlace(places, values);
      const [oldest] = open;
      if (open.size >= maxShort && oldest !== undefined) {
        open.delete(oldest);
        oldest.cancel();
      }
      open.add(exchange);
      whenClosed(exchange, () => {
        open.delete(exchange);
        leave();
      });
    },
  };
}
