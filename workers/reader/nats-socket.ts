/**
 * How messages get from nats-server into the worker: a connection of the shard's own that knows just what delivery takes
 * of the NATS protocol (INFO, CONNECT, PING, PONG, SUB, PUB, MSG, HMSG, -ERR; nats-operations.ts) and reads the socket straight into buffers
 * (buffer-pool.ts). A message of 75 kB is a window on the bytes as they came; the library puts it together out of the
 * reads of 64 KiB that it spans, in buffers that grow under way. With this the whole worker costs 0.21 instead of 0.86 CPU-s
 * a million events of 148 bytes, at batches of 500 (docs/performance.md, Worker).
 *
 * It logs in with the credentials of the library's connection. Where the server requires TLS, the library's connection delivers.
 */
import { connect, type Socket } from 'node:net';
import type { Msg, NatsConnection, ServerInfo } from '@nats-io/nats-core';
import { authenticatorOf, mustEncrypt } from '../../lib/nats.js';
import type { BufferPool } from './buffer-pool.js';
import { type Delivery, deliveryAt, OperationReader } from './nats-operations.js';

export type { Delivery } from './nats-operations.js';

export interface NatsSocketEvents {
  message(delivery: Delivery): void;
  /** A word of the server on a pull, instead of a message; `subject` is where it was sent. */
  status(subject: string, code: number, description: string): void;
  /** Nothing comes any more. */
  ended(why: string): void;
}

export interface NatsSocket {
  publish(subject: string, payload: string, reply: string): void;
  close(): void;
}

export interface NatsSocketOptions {
  readonly nc: Pick<NatsConnection, 'info' | 'getServer' | 'publish' | 'subscribe'>;
  /** Name of the connection, for the server's list. */
  readonly name: string;
  /** Deliveries and statuses are sent to subjects below this one. */
  readonly inbox: string;
  readonly buffers: BufferPool;
  readonly events: NatsSocketEvents;
}

const dialMs = 5_000;
/** Opens a shard's natsSocket on the server that `nc` is connected to. Rejects when it cannot be reached. */
export async function openNatsSocket(options: NatsSocketOptions): Promise<NatsSocket> {
  const { nc } = options;
  return wantsLibrary(nc.info, nc) ? overLibrary(options) : await dialled(options);
}

const wantsLibrary = (
  info: Pick<ServerInfo, 'tls_required' | 'auth_required'> | undefined,
  nc: NatsSocketOptions['nc'],
): boolean =>
  info === undefined ||
  info.tls_required === true ||
  // Even if this server does not ask for it.
  mustEncrypt(nc) ||
  (info.auth_required === true && authenticatorOf(nc) === undefined);

function infoOf(json: string): ServerInfo | undefined {
  try {
    return JSON.parse(json) as ServerInfo;
  } catch {
    return undefined;
  }
}

function overLibrary({ nc, inbox, events }: NatsSocketOptions): NatsSocket {
  const onMessage = (msg: Msg): void => {
    const code = msg.headers?.code ?? 0;
    if (msg.data.length === 0 && code > 0) {
      events.status(msg.subject, code, msg.headers?.description ?? '');
      return;
    }
    const reply = Buffer.from(msg.reply ?? '');
    const delivery = deliveryAt(reply, 0, reply.length);
    if (delivery === undefined) events.ended(`a message came with the reply "${msg.reply}"`);
    else events.message({ ...delivery, data: msg.data, buffer: undefined });
  };
  const sub = nc.subscribe(`${inbox}.*`, {
    callback: (error, msg) => (error === null ? onMessage(msg) : events.ended(error.message)),
  });
  return {
    publish: (subject, payload, reply) => nc.publish(subject, payload, { reply }),
    close: () => sub.unsubscribe(),
  };
}

/**
 * - `dialling`: the socket is being connected
 * - `greeted`: the server's INFO came, and the login was sent
 * - `ready`: the server answered the first PING
 */
type Phase = 'dialling' | 'greeted' | 'ready' | 'closed';

function dialled(options: NatsSocketOptions): Promise<NatsSocket> {
  const { nc, name, buffers, events } = options;
  const { hostname, port } = new URL(`nats://${nc.getServer()}`);
  return new Promise<NatsSocket>((resolve, reject) => {
    let phase: Phase = 'dialling';
    let socket: Socket;
    const close = (): void => {
      if (phase === 'closed') return;
      phase = 'closed';
      clearTimeout(patience);
      socket.destroy();
      reader.close();
    };
    const fail = (why: string): void => {
      const before = phase;
      if (before === 'closed') return;
      close();
      if (before === 'ready') events.ended(why);
      else reject(new Error(`the connection for ${name} failed: ${why}`));
    };
    const send = (text: string): void => {
      if (phase !== 'closed') socket.write(text);
    };
    const onInfo = (line: string): void => {
      // The server may send it again later, when its cluster changes.
      if (phase !== 'dialling') return;
      phase = 'greeted';
      const hello = helloTo(line, options);
      if (hello.kind === 'refused') fail(hello.why);
      else send(hello.text);
    };
    const onPong = (): void => {
      if (phase !== 'greeted') return;
      phase = 'ready';
      clearTimeout(patience);
      resolve(natsSocket);
    };
    const reader = new OperationReader(buffers, {
      line(line) {
        if (/^PING/i.test(line)) send('PONG\r\n');
        else if (/^INFO /i.test(line)) onInfo(line);
        else if (/^PONG/i.test(line)) onPong();
        else if (/^-ERR/i.test(line)) fail(line);
        else if (!/^\+OK/i.test(line)) fail(sentText(line));
      },
      message: events.message,
      status: events.status,
      broken: fail,
    });
    const natsSocket: NatsSocket = {
      publish: (subject, payload, reply) =>
        send(`PUB ${subject} ${reply} ${Buffer.byteLength(payload)}\r\n${payload}\r\n`),
      close,
    };
    const patience = setTimeout(() => fail(`no answer within ${dialMs} ms`), dialMs);
    const callback = (count: number): boolean => {
      reader.read(count);
      return true;
    };
    socket = connect({
      host: hostname.replace(/^\[|\]$/g, ''),
      port: Number(port || 4222),
      noDelay: true,
      onread: { buffer: () => reader.room(), callback },
    });
    socket.once('error', (error) => fail(error.message));
    socket.once('end', () => fail('the server ended it'));
    socket.once('close', () => fail('it was closed'));
  });
}

const sentText = (line: string): string => `the server sent "${line.slice(0, 200)}"`;

type Hello = { readonly kind: 'login'; readonly text: string } | { readonly kind: 'refused'; readonly why: string };

/** What is sent in answer to the server's INFO: login, subscription, and a PING that says when they are done. */
function helloTo(line: string, { nc, name, inbox }: NatsSocketOptions): Hello {
  const info = infoOf(line.slice(5));
  if (info === undefined) return { kind: 'refused', why: sentText(line) };
  if (wantsLibrary(info, nc)) return { kind: 'refused', why: 'the server wants TLS or other credentials now' };
  const login = info.auth_required === true ? authenticatorOf(nc)?.(info.nonce) : undefined;
  const hello = { verbose: false, pedantic: false, lang: 'node', version: '1', protocol: 1, headers: true, name };
  return {
    kind: 'login',
    text: `CONNECT ${JSON.stringify({ ...hello, ...login })}\r\nSUB ${inbox}.* 1\r\nPING\r\n`,
  };
}
