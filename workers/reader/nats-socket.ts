/**
 * How messages get from nats-server into the worker: a connection of the shard's own that knows just what delivery takes
 * of the NATS protocol (INFO, CONNECT, PING, PONG, SUB, PUB, MSG, HMSG, -ERR) and reads the socket straight into buffers
 * (buffer-pool.ts). A message of 75 kB is a window on the bytes as they came; the library puts it together out of the
 * reads of 64 KiB that it spans, in buffers that grow under way. With this the whole worker costs 0.21 instead of 0.86 CPU-s
 * a million events of 148 bytes, at batches of 500 (docs/performance.md, Worker).
 *
 * It logs in with the credentials of the library's connection. Where the server requires TLS, the library's connection delivers.
 */
import { connect, type Socket } from 'node:net';
import type { Msg, NatsConnection, ServerInfo } from '@nats-io/nats-core';
import { authenticatorOf, mustEncrypt } from '../../lib/nats.js';
import type { BufferPool, ReadBuffer } from './buffer-pool.js';

/** What the server says of a delivered message. */
export interface Delivery {
  readonly sequence: number;
  /** Number of the delivery, from 1 on for each consumer. */
  readonly delivery: number;
  readonly timeMs: number;
  readonly data: Uint8Array;
  /** Where the data lie; undefined when they are a buffer of their own. To be held before the callback returns. */
  readonly buffer: ReadBuffer | undefined;
}

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
/** Longest line of the protocol; INFO of a large cluster is some kB. */
const maxLine = 256 * 1024;
/** Largest message that nats-server can be set to allow. */
const maxMessage = 64 * 1024 ** 2;
/** What is left of a buffer for the next read at least. */
const minRead = 4_096;

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

/**
 * Numbers of a reply subject, `$JS.ACK.[domain.account.]stream.consumer.deliveries.stream seq.consumer seq.time (ns).pending[.random]`.
 * Read as bytes, without making strings of it.
 */
function deliveryAt(
  bytes: Uint8Array,
  from: number,
  to: number,
): { sequence: number; delivery: number; timeMs: number } | undefined {
  let tokens = 1;
  for (let i = from; i < to; i++) if (bytes[i] === 0x2e) tokens++;
  if (tokens < 9) return undefined;
  let skip = tokens === 9 ? 5 : 7;
  let at = from;
  while (skip > 0) if (bytes[at++] === 0x2e) skip--;
  const number = (leaveOut: number): number => {
    let end = at;
    while (end < to && bytes[end] !== 0x2e) end++;
    let value = 0;
    for (let i = at; i < end - leaveOut; i++) value = value * 10 + (bytes[i]! - 0x30);
    at = end + 1;
    return value;
  };
  return { sequence: number(0), delivery: number(0), timeMs: number(6) };
}

/** `NATS/1.0 409 Message Size Exceeds MaxBytes`: code and description; code 0 when the headers are just headers. */
function statusOf(headers: string): { code: number; description: string } {
  const match = /^NATS\/1\.0 +(\d{3})(?: +([^\r\n]*))?/.exec(headers);
  return { code: Number(match?.[1] ?? 0), description: match?.[2] ?? '' };
}

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

function dialled({ nc, name, inbox, buffers, events }: NatsSocketOptions): Promise<NatsSocket> {
  const { hostname, port } = new URL(`nats://${nc.getServer()}`);
  let buffer = buffers.first();
  /** The buffer holds the operation that is being read from `start` on, and bytes up to `end`. */
  let start = 0;
  let end = 0;
  /** Up to here no end of a line was found. */
  let looked = 0;
  /** Bytes of the operation from `start` on; 0 while its line is not whole. */
  let need = 0;
  /** Within the operation, from `start` on: where reply, headers and data begin. */
  let replyAt = 0;
  let replyEnd = 0;
  let headersAt = 0;
  let dataAt = 0;
  let subjectEnd = 0;
  let closed = false;
  let socket: Socket;

  /** Goes on in a new buffer that has room for so many bytes of the operation; what came of it moves along. */
  const roll = (bytes: number): void => {
    const next = buffers.take(bytes);
    buffer.bytes.copy(next.bytes, 0, start, end);
    buffers.filled(buffer);
    buffer = next;
    end -= start;
    looked -= start;
    start = 0;
  };
  /** Where the next read goes. Asked after each read, and once before. */
  const room = (): Buffer => {
    if (start === end && buffer.held === 0 && !buffer.spoiled) {
      start = 0;
      end = 0;
      looked = 0;
    }
    if (need > buffer.bytes.length - start || buffer.bytes.length - end < minRead) roll(Math.max(need, minRead));
    return buffer.bytes.subarray(end);
  };

  return new Promise<NatsSocket>((resolve, reject) => {
    let ready = false;
    let greeted = false;
    const fail = (why: string): void => {
      if (closed) return;
      close();
      if (ready) events.ended(why);
      else reject(new Error(`the connection for ${name} failed: ${why}`));
    };
    const close = (): void => {
      if (closed) return;
      closed = true;
      clearTimeout(patience);
      socket.destroy();
      buffers.filled(buffer);
    };
    const send = (text: string): void => {
      if (!closed) socket.write(text);
    };

    /** `MSG subject sid [reply] bytes`, `HMSG subject sid [reply] header-bytes bytes`; `to` is without the line's end. */
    const readMessageLine = (from: number, to: number, lineEnd: number): void => {
      const { bytes } = buffer;
      const numbers = (bytes[from]! | 0x20) === 0x68 ? 2 : 1;
      const at: number[] = [];
      for (let i = from; i < to; i++) if (bytes[i] === 0x20 && bytes[i + 1] !== 0x20) at.push(i + 1);
      const hasReply = at.length === 3 + numbers;
      const size = Number(text(at[at.length - 1] ?? to, to));
      const headers = numbers === 1 ? 0 : Number(text(at[at.length - 2] ?? to, (at[at.length - 1] ?? to) - 1));
      const isSound = hasReply || at.length === 2 + numbers;
      if (!isSound || !(size >= 0 && size <= maxMessage && headers >= 0 && headers <= size)) {
        fail(`the server sent "${text(from, Math.min(to, from + 200))}"`);
        return;
      }
      subjectEnd = at[1]! - 1 - from;
      replyAt = hasReply ? at[2]! - from : 0;
      replyEnd = hasReply ? at[3]! - 1 - from : 0;
      headersAt = lineEnd - from;
      dataAt = headersAt + headers;
      need = headersAt + size + 2;
    };

    const readLine = (line: string): void => {
      if (/^PING/i.test(line)) send('PONG\r\n');
      else if (/^INFO /i.test(line)) {
        // The server may tell it again later, when its cluster changes.
        if (greeted) return;
        greeted = true;
        const info = infoOf(line.slice(5));
        if (info === undefined || wantsLibrary(info, nc)) {
          fail(
            info === undefined
              ? `the server sent "${line.slice(0, 200)}"`
              : 'the server wants TLS or other credentials now',
          );
          return;
        }
        const login = info.auth_required === true ? authenticatorOf(nc)?.(info.nonce) : undefined;
        const hello = { verbose: false, pedantic: false, lang: 'node', version: '1', protocol: 1, headers: true, name };
        send(`CONNECT ${JSON.stringify({ ...hello, ...login })}\r\nSUB ${inbox}.* 1\r\nPING\r\n`);
      } else if (/^PONG/i.test(line)) {
        ready = true;
        clearTimeout(patience);
        resolve(natsSocket);
      } else if (/^-ERR/i.test(line)) fail(line);
      else if (!/^\+OK/i.test(line)) fail(`the server sent "${line.slice(0, 200)}"`);
    };
    const text = (from: number, to: number): string => buffer.bytes.toString('latin1', from, to);

    const deliver = (): void => {
      const { bytes } = buffer;
      const data = bytes.subarray(start + dataAt, start + need - 2);
      const { code, description } =
        data.length === 0 && dataAt > headersAt
          ? statusOf(text(start + headersAt, start + dataAt))
          : { code: 0, description: '' };
      if (code > 0) {
        events.status(text(bytes.indexOf(0x20, start) + 1, start + subjectEnd), code, description);
        return;
      }
      const info = deliveryAt(bytes, start + replyAt, start + replyEnd);
      if (info === undefined) fail(`a message came with the reply "${text(start + replyAt, start + replyEnd)}"`);
      else {
        const { sequence, delivery, timeMs } = info;
        events.message({ sequence, delivery, timeMs, data, buffer });
      }
    };

    const onBytes = (count: number): boolean => {
      if (closed) return true;
      end += count;
      while (!closed) {
        if (need === 0) {
          const { bytes } = buffer;
          while (looked < end && bytes[looked] !== 0x0a) looked++;
          if (looked - start > maxLine) fail(`the server sent a line of more than ${maxLine} bytes`);
          if (looked === end || closed) return true;
          const from = start;
          const to = bytes[looked - 1] === 0x0d ? looked - 1 : looked;
          looked++;
          const first = bytes[from]! | 0x20;
          if (first === 0x6d || first === 0x68) readMessageLine(from, to, looked);
          else {
            start = looked;
            readLine(text(from, to));
          }
          continue;
        }
        if (end - start < need) return true;
        deliver();
        start += need;
        looked = start;
        need = 0;
      }
      return true;
    };

    const natsSocket: NatsSocket = {
      publish: (subject, payload, reply) =>
        send(`PUB ${subject} ${reply} ${Buffer.byteLength(payload)}\r\n${payload}\r\n`),
      close,
    };
    const patience = setTimeout(() => fail(`no answer within ${dialMs} ms`), dialMs);
    socket = connect({
      host: hostname.replace(/^\[|\]$/g, ''),
      port: Number(port || 4222),
      noDelay: true,
      onread: { buffer: room, callback: onBytes },
    });
    socket.once('error', (error) => fail(error.message));
    socket.once('end', () => fail('the server ended it'));
    socket.once('close', () => fail('it was closed'));
  });
}
