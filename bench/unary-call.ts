/**
 * One unary call on node:http2, over gRPC or Connect. A call costs the load's process about as much CPU as the gateway's:
 * where that would decide the figure, h2load makes the calls (h2load.ts).
 */
import { type ClientHttp2Session, constants } from 'node:http2';
import { KiB } from '../lib/units.js';
import { FrameReader } from './grpc-answers.js';
import type { CallHeaders, CallProtocol } from './h2-link.js';

export type UnaryAnswer =
  | { readonly kind: 'message'; readonly message: Buffer }
  | {
      readonly kind: 'failed';
      readonly reason: string;
      /** `unseen`: the server refused it without looking at it; `final`: a retry would not help. */
      readonly retry: 'soon' | 'unseen' | 'final';
    };

/** Unary answers are a hundred bytes; more is an error page. */
const maxAnswerBytes = 64 * KiB;
/** Invalid, no such method, no such key: of gRPC and of HTTP. */
const final: readonly string[] = ['3', '12', '16', '400', '401', '404'];

/** @param bytes the body: with gRPC in its frame */
export function callUnary(
  session: ClientHttp2Session,
  protocol: CallProtocol,
  headers: CallHeaders,
  bytes: Uint8Array,
  done: (answer: UnaryAnswer) => void,
): void {
  const stream = session.request(headers, { endStream: false });
  let status = '';
  let told = '';
  let problem: string | undefined;
  let body: Buffer | undefined;
  const note = (answer: Record<string, unknown>): void => {
    const found = protocol === 'grpc' ? answer['grpc-status'] : answer[':status'];
    if (found === undefined) return;
    status = String(found);
    told = String(answer['grpc-message'] ?? '');
  };
  stream.on('response', note);
  stream.on('trailers', note);
  stream.on('data', (chunk: Buffer) => {
    body = body === undefined ? chunk : Buffer.concat([body, chunk]);
    if (body.length > maxAnswerBytes) stream.destroy(new Error('an answer above 64 KiB'));
  });
  stream.on('error', (error: Error) => {
    problem = error.message;
  });
  stream.on('close', () => {
    const good = status === (protocol === 'grpc' ? '0' : '200') && problem === undefined;
    const message = good && body !== undefined ? messageIn(body, protocol) : undefined;
    if (message !== undefined) return done({ kind: 'message', message });
    if (protocol === 'connect') told = body?.toString('utf8', 0, 300) ?? '';
    const unseen = stream.rstCode === constants.NGHTTP2_REFUSED_STREAM;
    const retry = unseen ? 'unseen' : final.includes(status) ? 'final' : 'soon';
    done({ kind: 'failed', reason: problem ?? reasonOf(protocol, status, told), retry });
  });
  stream.end(bytes);
}

function reasonOf(protocol: CallProtocol, status: string, told: string): string {
  const name = protocol === 'grpc' ? 'gRPC' : 'HTTP';
  return status === '' ? `the call ended without a ${name} status` : `${name} status ${status} ${told}`;
}

/** With gRPC: the one message, not compressed. */
function messageIn(body: Buffer, protocol: CallProtocol): Buffer | undefined {
  if (protocol === 'connect') return body;
  let message: Buffer | undefined;
  new FrameReader().push(body, (bytes) => {
    message = bytes;
  });
  return message;
}
