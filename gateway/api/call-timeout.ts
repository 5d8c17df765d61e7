/**
 * Reads how long a caller waits for its answer (`grpc-timeout`, `connect-timeout-ms`), in one way for both paths, and answers a request
 * that is not whole by then. Batches that are whole have their deadline in the core (deadlines.ts).
 *
 * Whole milliseconds, rounded up: a call never ends here before it ends at its caller.
 */
import type { IncomingHttpHeaders } from 'node:http';
import type { UniversalHandlerFn, UniversalServerRequest } from '@connectrpc/connect/protocol';
import { SluiceError } from '../../lib/errors.js';
import { toConnectError } from '../errors/rpc-errors.js';
import type { CallGate, GatedCall } from '../held/call-gate.js';
import type { RequestInput } from '../held/request-input.js';
import { type Stop, takeUntil } from '../held/take-until.js';
import type { NodeRequest, NodeResponse } from '../listener/node-request.js';
import type { RpcRoute } from './rpc-route.js';

/** What setTimeout can do, ms. A deadline further away than these 24 days is none. */
export const farthestTimeout = 2 ** 31 - 1;

const grpcForm = /^\d{1,8}[HMSmun]$/;
const connectForm = /^\d{1,10}$/;
/** Units of a timeout in a second, or seconds in a unit: whole numbers, so that nothing is lost by rounding. */
const perSecond: Readonly<Record<string, number>> = { m: 1e3, u: 1e6, n: 1e9 };
const seconds: Readonly<Record<string, number>> = { H: 3_600, M: 60, S: 1 };

/** Of `grpc-timeout`, ms. Undefined: it is none. */
export function grpcTimeout(text: string): number | undefined {
  if (!grpcForm.test(text)) return undefined;
  const count = Number.parseInt(text, 10);
  const unit = text.slice(-1);
  const fraction = perSecond[unit];
  return fraction === undefined ? count * (seconds[unit] as number) * 1_000 : Math.ceil(count / (fraction / 1_000));
}

/** Of `connect-timeout-ms`, ms. Undefined: it is none. */
export function connectTimeout(text: string): number | undefined {
  return connectForm.test(text) ? Number.parseInt(text, 10) : undefined;
}

const isGrpc = (contentType: string | null | undefined): boolean => /^application\/grpc/i.test(contentType ?? '');

/** Of a request of any protocol, ms. Undefined: it has none, none that counts, or one that its protocol's handler refuses. */
export function timeoutOf(header: (name: string) => string | null | undefined): number | undefined {
  const grpc = isGrpc(header('content-type'));
  const text = header(grpc ? 'grpc-timeout' : 'connect-timeout-ms') ?? '';
  const timeout = grpc ? grpcTimeout(text) : connectTimeout(text);
  return timeout === undefined || timeout > farthestTimeout ? undefined : timeout;
}

/** The RPC library reads the header, rounds in its own way, and takes a far-away deadline for a near one. */
export function roundTimeout(headers: IncomingHttpHeaders, waitedMs = 0): void {
  const grpc = isGrpc(headers['content-type']);
  const name = grpc ? 'grpc-timeout' : 'connect-timeout-ms';
  const text = headers[name];
  if (typeof text !== 'string') return;
  const timeout = grpc ? grpcTimeout(text) : connectTimeout(text);
  if (timeout === undefined) return;
  const left = Math.max(0, Math.ceil(timeout - waitedMs));
  if (timeout > farthestTimeout) delete headers[name];
  else if (!grpc) headers[name] = String(left);
  // Eight digits are all that the header has room for.
  else if (left < 1e8) headers[name] = `${left}m`;
  else headers[name] = `${Math.ceil(left / 1_000)}S`;
}

/** What a call whose request is not whole at its deadline is answered with. */
export const requestLate = (): SluiceError =>
  new SluiceError('deadline', 'The deadline passed before the request was complete.', { retryAfterMs: 0 });

/**
 * A handler whose request ends with an error at the caller's deadline, so that it answers in its own protocol.
 * @param onLate a deadline has passed
 */
export function answeredAtDeadline(handler: RpcRoute, onLate: () => void): RpcRoute {
  return withBodyEnd(handler, ({ header }) => timeoutOf((name) => header.get(name)), requestLate, onLate);
}

/** Of a call without a batch, ms. */
const shortRequestMs = 10_000;

/** A handler of calls without a batch, whose request ends with an error when it is not whole in time. */
export function wholeInTime(handler: RpcRoute, onLate: () => void, withinMs = shortRequestMs): RpcRoute {
  const slow = (): SluiceError =>
    new SluiceError('request_timeout', `The call carries no batch, and was not whole within ${withinMs / 1_000} s.`, {
      retryAfterMs: 0,
    });
  return withBodyEnd(handler, () => withinMs, slow, onLate);
}

/** @param timeoutFor ms; undefined: the body may take any time */
function withBodyEnd(
  handler: RpcRoute,
  timeoutFor: (request: UniversalServerRequest) => number | undefined,
  error: () => SluiceError,
  onLate: () => void,
): RpcRoute {
  const served: UniversalHandlerFn = (request) => {
    const timeout = timeoutFor(request);
    const { body } = request;
    if (timeout === undefined || !isBytes(body)) return handler(request);
    const late = (stop: Stop): void => {
      onLate();
      stop(toConnectError(error()));
    };
    return handler({ ...request, body: takeUntil(body, (stop) => endAfter(timeout, late, stop)) });
  };
  return Object.assign(served, { allowedMethods: handler.allowedMethods });
}

const isBytes = (body: unknown): body is AsyncIterable<Uint8Array> =>
  typeof body === 'object' && body !== null && Symbol.asyncIterator in body;

/** @param timeout ms; 0: at once */
function endAfter(timeout: number, late: (stop: Stop) => void, stop: Stop): () => void {
  if (timeout === 0) {
    late(stop);
    return () => {};
  }
  const timer = setTimeout(late, timeout, stop);
  return () => clearTimeout(timer);
}

/**
 * Lets a request through the gate, and at its deadline in any case, for its answer. The time that it has waited is taken off.
 * @param input is not read while the request waits
 * @param handle is called once, or not at all when the caller has gone away
 */
export function passInTime(
  gate: CallGate,
  request: NodeRequest,
  response: NodeResponse,
  input: RequestInput,
  handle: () => void,
): void {
  const { headers } = request;
  const timeout = timeoutOf((name) => headers[name] as string | undefined);
  const arrivedAt = performance.now();
  let timer: NodeJS.Timeout | undefined;
  let entered = false;
  const call: GatedCall = {
    tenant: input.tenant,
    get received() {
      return input.received;
    },
    enter(): void {
      if (entered) return;
      entered = true;
      clearTimeout(timer);
      input.sit();
      roundTimeout(headers, performance.now() - arrivedAt);
      handle();
    },
  };
  response.once('close', () => {
    clearTimeout(timer);
    gate.leave(call);
  });
  gate.pass(call);
  if (entered) return;
  input.standInLine();
  if (timeout === undefined) return;
  timer = setTimeout(() => {
    gate.leave(call);
    call.enter();
  }, timeout);
}
