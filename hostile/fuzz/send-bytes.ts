/** Sends bytes on a connection of their own: requests in HTTP/1.1, and HTTP/2 whose frames are broken too. */
import type { Socket } from 'node:net';
import { integer } from '../../lib/testing/batches.js';
import { flag, frame, frameHead, frameType, preface } from '../../lib/testing/h2-frames.js';
import { headerBlock, settingsFrame } from '../wire/h2.js';
import { dial, opened, type Target } from '../wire/sockets.js';
import { mutatedBytes } from './mutate.js';
import { type RequestOutcome, Wait } from './outcome.js';
import type { Plan } from './plan.js';

/** What is broken may wait for more: the sender ends its side so long after the last byte, ms. */
const patienceMs = 30;

interface Text {
  readonly bytes: Buffer;
  /** The request and its head were left as they are: an answer is owed. */
  readonly whole: boolean;
}

function chunked(plan: Plan): Buffer {
  const { random, request } = plan;
  const parts: Buffer[] = [];
  for (let at = 0; at < request.body.length; ) {
    const size = Math.min(request.body.length - at, integer(random, 1, 4_096));
    parts.push(Buffer.from(`${size.toString(16)}\r\n`), request.body.subarray(at, at + size), Buffer.from('\r\n'));
    at += size;
  }
  return Buffer.concat([...parts, Buffer.from('0\r\n\r\n')]);
}

function textOf(plan: Plan, authorization: string): Text {
  const { random, request, valid } = plan;
  const inChunks = random() < 0.3;
  const length = inChunks ? 'transfer-encoding: chunked' : `content-length: ${request.body.length}`;
  const lines = [
    `${request.method} ${request.path} HTTP/1.1`,
    'host: gateway.example',
    `authorization: ${authorization}`,
    ...request.headers.map(([name, value]) => `${name}: ${value}`),
    ...(request.body.length > 0 || request.method === 'POST' ? [length] : []),
  ];
  const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
  const bytes = Buffer.concat([head, inChunks ? chunked(plan) : request.body]);
  if (valid !== undefined) return { bytes, whole: true };
  const dice = random();
  if (dice < 0.3) return { bytes: mutatedBytes(random, bytes, bytes), whole: false };
  // Several at once, whose answers come one after another.
  if (dice < 0.4) return { bytes: Buffer.concat([bytes, bytes, bytes]), whole: false };
  return { bytes, whole: false };
}

function framesOf(plan: Plan, authorization: string): Buffer {
  const { random, request } = plan;
  const block = headerBlock([
    [':method', request.method],
    [':scheme', 'http'],
    [':authority', 'gateway.example'],
    [':path', request.path],
    ['authorization', authorization],
    ...request.headers,
  ]);
  const parts = [
    settingsFrame({ 4: 65_535 }),
    frame(frameType.headers, flag.endHeaders, 1, block),
    frame(frameType.data, flag.endStream, 1, request.body.subarray(0, 16_384)),
    frame(frameType.ping, 0, 0, Buffer.alloc(8)),
  ];
  if (random() < 0.3) parts.sort(() => random() - 0.5);
  const bytes = mutatedBytes(random, Buffer.concat(parts), Buffer.concat(parts));
  return Buffer.concat([random() < 0.95 ? preface : mutatedBytes(random, preface, bytes), bytes]);
}

/** The status and body of the first answer in HTTP/1.1, when it is whole. */
function answerIn(text: string): RequestOutcome['answer'] {
  const head = /^(?:HTTP\/1\.1 1\d\d [^\r]*\r\n\r\n)*HTTP\/1\.1 (\d{3}) (?:[^\r]|\r\n(?!\r\n))*\r\n\r\n/.exec(text);
  if (head === null) return undefined;
  const rest = text.slice(head[0].length);
  const length = /content-length: (\d+)/i.exec(head[0])?.[1];
  const grpcStatus = /grpc-status: ?(\d+)/i.exec(text)?.[1];
  if (length === undefined) {
    if (!/transfer-encoding: chunked/i.test(head[0]))
      return { status: head[1] ?? '', grpcStatus, body: Buffer.from(rest, 'latin1') };
    if (!rest.includes('0\r\n\r\n') && !/\r\n0\r\n/.test(rest)) return undefined;
    const body = rest.replace(/([0-9a-f]+)\r\n([\s\S]*?)\r\n(?=[0-9a-f]+\r\n)/gi, '$2').replace(/0\r\n[\s\S]*$/, '');
    return { status: head[1] ?? '', grpcStatus, body: Buffer.from(body, 'latin1') };
  }
  if (rest.length < Number(length)) return undefined;
  return { status: head[1] ?? '', grpcStatus, body: Buffer.from(rest.slice(0, Number(length)), 'latin1') };
}

/** The gateway's last frame on a connection whose frames are broken. It keeps the socket until the peer has been silent for 40 s. */
function hasGoaway(bytes: Buffer): boolean {
  for (let at = 0; at + frameHead <= bytes.length; at += frameHead + bytes.readUIntBE(at, 3)) {
    if (bytes[at + 3] === frameType.goaway) return true;
  }
  return false;
}

export async function sendBytes(plan: Plan, target: Target, authorization: string): Promise<RequestOutcome> {
  const socket = dial(target, plan.transport === 'http1' ? 'http/1.1' : 'h2');
  const { bytes, whole } =
    plan.transport === 'http1' ? textOf(plan, authorization) : { bytes: framesOf(plan, authorization), whole: false };
  if (!(await opened(socket))) return { fate: 'not taken' };
  try {
    return await exchange(socket, bytes, plan, whole);
  } finally {
    socket.destroy();
  }
}

function exchange(socket: Socket, bytes: Buffer, { transport, random }: Plan, whole: boolean): Promise<RequestOutcome> {
  return new Promise((resolve) => {
    let text = '';
    const timers: NodeJS.Timeout[] = [];
    const settle = (fate: RequestOutcome['fate'], answer?: RequestOutcome['answer']): void => {
      for (const timer of timers) clearTimeout(timer);
      wait.cancel();
      resolve({ fate, answer, waitedMs: wait.ms });
    };
    const wait = new Wait(
      () => {},
      () => settle('silent', answerIn(text)),
    );
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      const answer = transport === 'http1' ? answerIn(text) : undefined;
      if (answer !== undefined) settle('answered', answer);
      else if (transport === 'bytes' && hasGoaway(Buffer.from(text, 'latin1'))) settle('ended');
    });
    socket.once('close', () => settle(text === '' ? 'ended' : 'answered', answerIn(text)));
    const half = random() < 0.1 ? integer(random, 0, bytes.length) : 0;
    socket.write(bytes.subarray(0, half));
    const rest = (): void => {
      socket.write(bytes.subarray(half));
      wait.begin();
      if (!whole) timers.push(setTimeout(() => socket.end(), patienceMs));
    };
    if (half > 0) timers.push(setTimeout(rest, 20));
    else rest();
  });
}
