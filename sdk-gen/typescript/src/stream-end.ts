/**
 * Why a stream ended, in the words of the host.
 *
 * Only the gateway itself refuses finally, and it signs each refusal: an ErrorInfo with its domain. A status without one comes from a
 * proxy or a firewall in between, which may change its answer. It is no reason to give anything up.
 */
import type { Duration } from '@bufbuild/protobuf/wkt';
import { ConnectError } from '@connectrpc/connect';
import { ErrorInfoSchema, RetryInfoSchema } from '../gen/google/rpc/error_details_pb.js';
import { codeName, SluiceClientError } from './errors.js';
import type { AnswerHeaders } from './http2-connection.js';

const gatewayDomain = 'sluice';

export interface StreamEnd {
  /** What the call threw. */
  readonly thrown: unknown;
  readonly baseUrl: string;
  /** What the connection says. */
  readonly fault: Error | undefined;
  /** Headers of the answer; undefined: there was none. */
  readonly answer: AnswerHeaders | undefined;
}

export function toClientError({ thrown, baseUrl, fault, answer }: StreamEnd): SluiceClientError {
  const rpc = ConnectError.from(thrown);
  const [info] = rpc.findDetails(ErrorInfoSchema);
  // A broken connection explains what the call makes of it. An answer that is no gRPC explains itself.
  if (fault !== undefined && info === undefined && (answer === undefined || isGrpc(answer))) {
    return new SluiceClientError('unavailable', messageOf(fault, baseUrl), { cause: fault });
  }
  const [retry] = rpc.findDetails(RetryInfoSchema);
  const retryAfterMs = retry?.retryDelay === undefined ? retryAfterOf(answer) : milliseconds(retry.retryDelay);
  const ours = info?.domain === gatewayDomain;
  return new SluiceClientError(codeName(rpc.code), ours ? rpc.rawMessage : foreign(rpc, baseUrl, answer), {
    ...(ours ? { reason: info.reason } : {}),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    cause: rpc.cause ?? rpc,
  });
}

const isGrpc = (answer: AnswerHeaders): boolean =>
  answer[':status'] === 200 && /^application\/grpc(?![\w-])/i.test(answer['content-type'] ?? '');

export const milliseconds = (duration: Duration): number =>
  Math.max(0, Number(duration.seconds) * 1_000 + duration.nanos / 1_000_000);

/** The header of HTTP, where it is a number of seconds. */
function retryAfterOf(answer: AnswerHeaders | undefined): number | undefined {
  const text = answer?.['retry-after'] ?? '';
  return /^\d{1,6}$/.test(text) ? Number(text) * 1_000 : undefined;
}

/** Codes of a certificate from an authority that Node does not know. */
const unknownIssuers: ReadonlySet<unknown> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_GET_ISSUER_CERT',
]);

/** By OpenSSL's reason. */
const tlsAdvice: Readonly<Record<string, string>> = {
  'wrong version number': '; does it speak plain http?',
  'tlsv13 alert certificate required': ': it asks clients for a certificate, which the option tls gives it',
};

/** In words: some errors of Node have no message of their own, and those of TLS have addresses in it. */
function messageOf(error: Error & { code?: unknown; reason?: unknown }, baseUrl: string): string {
  if (unknownIssuers.has(error.code)) {
    return `The certificate of ${baseUrl} is not trusted (${error.message}): give its authority by tls.ca, or in the variable NODE_EXTRA_CA_CERTS.`;
  }
  const [first] = error instanceof AggregateError ? error.errors : [];
  if (/:SSL routines:/.test(error.message) && typeof error.reason === 'string') {
    return `TLS with ${baseUrl} failed: ${error.reason}${tlsAdvice[error.reason] ?? ''}`;
  }
  return error.message || (first instanceof Error ? first.message : String(error));
}

/** Says what answered in the gateway's place, and what to look at. */
function foreign(rpc: ConnectError, baseUrl: string, answer: AnswerHeaders | undefined): string {
  if (answer === undefined || isGrpc(answer)) {
    return rpc.rawMessage || `${baseUrl} ended the stream with gRPC status ${rpc.code} and no message.`;
  }
  const status = answer[':status'] ?? 0;
  if (status !== 200) return `HTTP ${status} from ${baseUrl}, and not from a gateway: ${advice(status, baseUrl)}`;
  const type = answer['content-type'] ?? 'no content type';
  return `${baseUrl} answers with ${type}, not with gRPC: check that baseUrl is the address of a gateway.`;
}

function advice(status: number, baseUrl: string): string {
  const { pathname } = new URL(baseUrl);
  switch (status) {
    case 404:
      return pathname === '/'
        ? 'check that baseUrl is the address of a gateway.'
        : `check the path "${pathname}" in baseUrl; a gateway has none unless a proxy in front of it adds one.`;
    case 401:
    case 403:
    case 407:
      return 'a proxy or firewall in front of it refuses the call; the key is not the cause.';
    case 413:
    case 431:
      return 'a proxy in front of it has a limit on the size; raise that limit, or lower batchBytes.';
    case 429:
      return 'a proxy in front of it limits how often clients may call.';
    case 502:
    case 503:
    case 504:
      return 'a proxy in front of it reaches no gateway.';
    default:
      return 'look at the proxy in front of it.';
  }
}
