/** Bytes on an HTTP/1.1 connection that are no request: what is answered, and when. */
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { SluiceError } from '../../lib/errors.js';
import { toHttpAnswer } from '../errors/rpc-errors.js';
import { lastWordsMs } from './answered-early.js';
import { maxHeaderBytes } from './header-limits.js';

const owedKey = Symbol('owed');
const refusedKey = Symbol('refused');

interface Http1Socket extends Socket {
  /** Answers that the peer waits for, in the order of their requests. */
  [owedKey]?: Set<ServerResponse>;
  [refusedKey]?: boolean;
}

/** The peer of this socket waits for this answer. */
export function owe(response: ServerResponse, socket: Http1Socket): void {
  socket[owedKey] ??= new Set();
  const owed = socket[owedKey].add(response);
  response.once('close', () => owed.delete(response));
}

/** The request on this socket whose body still comes. */
export function incompleteOn(socket: Duplex & Pick<Http1Socket, typeof owedKey>): IncomingMessage | undefined {
  for (const { req } of socket[owedKey] ?? []) if (!req.complete) return req;
  return undefined;
}

/**
 * Ends the answers that a closed connection still owed. Node ends the first one; those behind it are not on the socket yet, and would never
 * hear of its end, with all that waits for theirs.
 */
export function closeOwed(socket: Http1Socket): void {
  for (const response of [...(socket[owedKey] ?? [])]) {
    response.destroy();
    response.emit('close');
  }
}

/**
 * Answers bytes that are no HTTP request, and ends the connection. Requests before them that came whole are answered first: they may
 * be stored already, and the peer would take this answer for theirs.
 */
export function refuseUnreadable(error: NodeJS.ErrnoException & { reason?: string }, duplex: Duplex): void {
  const socket = duplex as Http1Socket;
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
  // Every further piece is an error again.
  if (socket[refusedKey] === true) return;
  socket[refusedKey] = true;
  const refuse = (): void => {
    if (socket.writable) socket.end(unreadable(error));
    setTimeout(() => socket.destroy(), lastWordsMs).unref();
  };
  const last = [...(socket[owedKey] ?? [])].filter(({ req }) => req.complete).at(-1);
  if (last === undefined) refuse();
  else last.once('close', refuse);
}

/** The answer to bytes that are no HTTP request. */
function unreadable({ code, reason }: NodeJS.ErrnoException & { reason?: string }): string {
  const error =
    code === 'HPE_HEADER_OVERFLOW'
      ? new SluiceError('headers_too_large', `The headers have more than ${maxHeaderBytes} bytes.`)
      : code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? new SluiceError('request_timeout', 'The request was not complete in time.')
        : new SluiceError('http_malformed', `The bytes are no HTTP request (${reason ?? code ?? 'unknown'}).`);
  const { status, body } = toHttpAnswer(error);
  const text = `${JSON.stringify(body)}\n`;
  const head = `connection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}`;
  return `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${head}\r\n\r\n${text}`;
}
