/**
 * How virtual clients speak to the gateway: on bare HTTP/2, a number of clients to a connection, as behind a proxy or an SDK's pool.
 * A client has a PublishStream of its own, or makes a unary call for each batch, over gRPC or Connect.
 *
 * Honours what a client must: flow control, `Draining`, GOAWAY, refused streams, retries, lost connections (with back-off). A call costs
 * the load process about 0.3 ms of CPU, all its bookkeeping included (half streams, half unary calls; `bench -- endurance`).
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { FrameReader, readAnswer } from '../grpc-answers.js';
import type { SenderEvents } from '../sender.js';
import type { Caller, Client } from './crowd.js';

export interface CallTarget {
  /** `http://127.0.0.1:7070` */
  readonly url: string;
  /** By customer. */
  readonly keys: readonly string[];
  readonly connections: number;
}

/** A failed call is sent again after this, ± half. */
const retryMs = 100;
const longestBackoffMs = 1_000;
/** A call that was refused unseen comes again after this, so often at most. */
const refusalPauseMs = 5;
const maxRefusals = 20;
/** No connection for this long ends the run. */
const patienceMs = 30_000;
const window = 1024 * 1024;
/** Unary answers are a hundred bytes; more is an error page. */
const maxAnswerBytes = 64 * 1024;

const service = '/sluice.ingest.v1.IngestService/';
const { HTTP2_HEADER_METHOD, HTTP2_HEADER_PATH, HTTP2_HEADER_CONTENT_TYPE, HTTP2_HEADER_AUTHORIZATION } = constants;
const agent = { [constants.HTTP2_HEADER_USER_AGENT]: 'sluice-bench/0.1.0' };

export function openCalls(
  target: CallTarget,
  clients: readonly Client[],
  events: SenderEvents,
): Caller & { close(): void } {
  const links = Array.from({ length: target.connections }, () => keepLinked(target.url, events));
  const lanes = new Map<number, Lane>();
  for (const client of clients) {
    if (client.group.calls === 'stream') {
      lanes.set(client.index, { stream: undefined, waiting: -1, ended: () => undefined, draining: false });
    }
  }
  const headersOf = (key: string) => ({
    [HTTP2_HEADER_METHOD]: 'POST',
    [HTTP2_HEADER_AUTHORIZATION]: `Bearer ${key}`,
    ...agent,
  });
  const grpc = { [HTTP2_HEADER_CONTENT_TYPE]: 'application/grpc+proto', te: 'trailers' };
  const headers = target.keys.map((key) => ({
    stream: { ...headersOf(key), ...grpc, [HTTP2_HEADER_PATH]: `${service}PublishStream` },
    grpc: { ...headersOf(key), ...grpc, [HTTP2_HEADER_PATH]: `${service}Publish` },
    connect: {
      ...headersOf(key),
      [HTTP2_HEADER_CONTENT_TYPE]: 'application/proto',
      'connect-protocol-version': '1',
      [HTTP2_HEADER_PATH]: `${service}Publish`,
    },
  }));
  let closed = false;
  const send = (client: Client, refusals = 0): boolean => {
    const session = links[client.index % links.length]!.session();
    const { calls, customer } = client.group;
    const lane = lanes.get(client.index);
    if (session === undefined && lane?.stream === undefined) return false;
    // What a connection that is going away refuses was not processed: the protocol lets a client send it again as it was.
    const { number } = client;
    const ended = (reason: string, rstCode: number): void => {
      if (rstCode !== constants.NGHTTP2_REFUSED_STREAM || refusals >= maxRefusals) {
        events.outcome(client.index, number, failed(reason));
      } else {
        setTimeout(again, refusalPauseMs);
      }
    };
    const again = (): void => {
      if (!closed && !send(client, refusals + 1)) setTimeout(again, refusalPauseMs);
    };
    if (lane !== undefined) sendOnStream(lane, client, session, headers[customer]!.stream, ended, events);
    else if (calls === 'grpc') callGrpc(client, session!, headers[customer]!.grpc, ended, events);
    else callConnect(client, session!, headers[customer]!.connect, ended, events);
    return true;
  };
  return {
    send: (client) => send(client),
    close() {
      closed = true;
      for (const link of links) link.close();
    },
  };
}

/** Reports a call that ended without an answer: why, and HTTP/2's code. */
type Ended = (reason: string, rstCode: number) => void;

const failed = (reason: string) => ({ kind: 'retry', afterMs: retryMs * (0.5 + Math.random()), reason }) as const;
const refused = (reason: string) => ({ kind: 'refused', reason }) as const;

interface Link {
  /** The connection that takes new calls; undefined while there is none. */
  session(): ClientHttp2Session | undefined;
  close(): void;
}

/** One connection, made again whenever it is lost or goes away. */
function keepLinked(url: string, events: SenderEvents): Link {
  let live: ClientHttp2Session | undefined;
  let closed = false;
  let failures = 0;
  let lastGood = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const open = (): void => {
    if (closed) return;
    const session = connect(url, { settings: { initialWindowSize: window, enablePush: false } });
    // A connection is followed by one other, be it for GOAWAY, an error or its end.
    let followed = false;
    const follow = (reason: string, waitMs: number): void => {
      if (live === session) live = undefined;
      if (followed || closed) return;
      followed = true;
      if (performance.now() - lastGood > patienceMs) {
        events.failed(new Error(`no connection to ${url} for ${patienceMs / 1000} s: ${reason}`));
        return;
      }
      timer = setTimeout(open, waitMs);
    };
    const backoff = () => Math.min(longestBackoffMs, 25 * 2 ** failures++) * (0.5 + Math.random() / 2);
    session.setMaxListeners(0);
    session.on('error', (error) => follow(error.message, backoff()));
    session.on('close', () => follow('connection closed', backoff()));
    session.on('goaway', () => {
      follow('going away', 0);
      // Calls in flight may end; not from within the session's own callback.
      setImmediate(() => session.close());
    });
    session.on('connect', () => {
      session.setLocalWindowSize(window);
      failures = 0;
      lastGood = performance.now();
      live = session;
      events.writable();
    });
  };
  open();
  return {
    session: () => (live === undefined || live.closed || live.destroyed ? undefined : live),
    close() {
      closed = true;
      clearTimeout(timer);
      live?.destroy();
    },
  };
}

interface Lane {
  stream: ClientHttp2Stream | undefined;
  /** Number of the batch that has no answer yet; -1: none. */
  waiting: number;
  /** Of the call in flight. */
  ended: Ended;
  /** The gateway asked for no more on this stream. */
  draining: boolean;
}

type Headers = Readonly<Record<string, string>>;

function sendOnStream(
  lane: Lane,
  client: Client,
  session: ClientHttp2Session | undefined,
  headers: Headers,
  ended: Ended,
  events: SenderEvents,
): void {
  lane.ended = ended;
  lane.waiting = client.number;
  lane.stream ??= openLane(lane, client, session!, headers, events);
  lane.stream.write(client.message.bytes);
}

function openLane(
  lane: Lane,
  client: Client,
  session: ClientHttp2Session,
  headers: Headers,
  events: SenderEvents,
): ClientHttp2Stream {
  const stream = session.request(headers, { endStream: false });
  lane.draining = false;
  const frames = new FrameReader();
  let status = 'stream closed';
  const note = (answer: Record<string, unknown>): void => {
    if (answer['grpc-status'] !== undefined) {
      status = `gRPC status ${String(answer['grpc-status'])} ${String(answer['grpc-message'] ?? '')}`;
    } else if (answer[':status'] !== undefined && answer[':status'] !== 200) {
      status = `HTTP status ${String(answer[':status'])}`;
    }
  };
  const leave = (): void => {
    if (lane.stream === stream) lane.stream = undefined;
    stream.end();
  };
  stream.on('response', note);
  stream.on('trailers', note);
  stream.on('data', (chunk: Buffer) => {
    try {
      frames.push(chunk, (message) => {
        const read = readAnswer(message);
        if (read.kind === 'draining') {
          lane.draining = true;
          if (lane.waiting < 0) leave();
        } else if (read.kind === 'accepted' || read.kind === 'failed') {
          if (lane.stream !== stream || read.name.number !== lane.waiting || read.name.slot !== client.index) {
            events.failed(new Error('an answer names a batch that is not in flight on this stream'));
            return;
          }
          const { number } = read.name;
          lane.waiting = -1;
          if (lane.draining) leave();
          if (read.kind === 'accepted') {
            const { accepted, rejected } = read;
            events.outcome(client.index, number, { kind: 'accepted', accepted, rejected });
          } else if (read.retryAfterMs === undefined) {
            events.outcome(client.index, number, refused(`${read.code} ${read.message}`));
          } else {
            events.outcome(client.index, number, { kind: 'retry', afterMs: read.retryAfterMs, reason: read.message });
          }
        }
      });
    } catch (error) {
      events.failed(error instanceof Error ? error : new Error(String(error)));
    }
  });
  stream.on('error', (error: Error) => {
    status = error.message;
  });
  stream.on('close', () => {
    if (lane.stream !== stream) return;
    lane.stream = undefined;
    const { waiting } = lane;
    lane.waiting = -1;
    if (waiting >= 0) lane.ended(status, stream.rstCode ?? 0);
  });
  return stream;
}

/** A unary answer of ours: PublishResponse has its BatchResult where a stream's answer has `accepted`. */
function told(client: Client, number: number, message: Buffer, events: SenderEvents): void {
  const read = readAnswer(message);
  if (read.kind !== 'accepted' || read.name.number !== number) {
    events.failed(new Error('the answer of Publish does not name the batch that was sent'));
    return;
  }
  const { accepted, rejected } = read;
  events.outcome(client.index, number, { kind: 'accepted', accepted, rejected });
}

function callConnect(
  client: Client,
  session: ClientHttp2Session,
  headers: Headers,
  ended: Ended,
  events: SenderEvents,
): void {
  const { number } = client;
  const stream = session.request(headers, { endStream: false });
  let status = 0;
  let body: Buffer | undefined;
  let reason = '';
  stream.on('response', (answer) => {
    status = Number(answer[':status']);
  });
  stream.on('data', (chunk: Buffer) => {
    body = body === undefined ? chunk : Buffer.concat([body, chunk]);
    if (body.length > maxAnswerBytes) stream.destroy(new Error('an answer above 64 KiB'));
  });
  stream.on('error', (error: Error) => {
    reason = error.message;
  });
  stream.on('close', () => {
    if (status === 200 && body !== undefined && reason === '') return told(client, number, body, events);
    const why = reason || `HTTP status ${status} ${body?.toString().slice(0, 200) ?? ''}`;
    if (status === 400 || status === 401) events.outcome(client.index, number, refused(why));
    else ended(why, stream.rstCode ?? 0);
  });
  // The same bytes without gRPC's frame.
  stream.end(client.message.bytes.subarray(5));
}

function callGrpc(
  client: Client,
  session: ClientHttp2Session,
  headers: Headers,
  ended: Ended,
  events: SenderEvents,
): void {
  const { number } = client;
  const stream = session.request(headers, { endStream: false });
  let status = '';
  let why = '';
  let body: Buffer | undefined;
  const frames = new FrameReader();
  const note = (answer: Record<string, unknown>): void => {
    if (answer['grpc-status'] === undefined) return;
    status = String(answer['grpc-status']);
    why = String(answer['grpc-message'] ?? '');
  };
  stream.on('response', note);
  stream.on('trailers', note);
  stream.on('data', (chunk: Buffer) => {
    try {
      frames.push(chunk, (message) => {
        body = Buffer.from(message);
      });
    } catch (error) {
      stream.destroy(error instanceof Error ? error : new Error(String(error)));
    }
  });
  stream.on('error', (error: Error) => {
    why = error.message;
  });
  stream.on('close', () => {
    if (status === '0' && body !== undefined) return told(client, number, body, events);
    const reason = `gRPC status ${status || 'missing'} ${why}`;
    // 3: invalid, 16: no such key. A retry would not help.
    if (status === '3' || status === '16') events.outcome(client.index, number, refused(reason));
    else ended(reason, stream.rstCode ?? 0);
  });
  stream.end(client.message.bytes);
}
