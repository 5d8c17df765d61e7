/**
 * The good client and its neighbours, in a process of their own (see bystanders.ts).
 *
 *   good    50 gRPC calls a second from 127.0.0.2; two of them a second open a connection of their own, as a new client does
 *   other   10 JSON calls a second over HTTP/1.1 from 127.0.0.3, another customer
 *   probe   a GET of /readyz a second on a new connection from 127.0.0.4, as a load balancer asks
 */
import { Agent, request as requestPlain } from 'node:http';
import { type ClientHttp2Session, connect } from 'node:http2';
import { request as requestTls, Agent as TlsAgent } from 'node:https';
import { newHistogram, quantiles, record } from '../lib/testing/latency.js';
import type { BystanderSettings, FromBystanders, Phase, PhaseSeen, Seen, ToBystanders } from './bystanders.js';
import { bearer, envelope, publishRequests, service } from './wire/messages.js';
import { dial } from './wire/sockets.js';

const goodEveryMs = 20;
/** Of the good client's calls, one in so many opens a connection. */
const newcomerEvery = 25;
const otherEveryMs = 100;
const probeEveryMs = 1_000;
const patienceMs = 20_000;
const maxReasons = 6;
const eventsOfCall = 20;

type Role = 'good' | 'other' | 'probe';

interface Tally {
  readonly histogram: ReturnType<typeof newHistogram>;
  calls: number;
  errors: number;
  open: number;
  readonly reasons: Map<string, number>;
}

interface Book {
  readonly phase: Phase;
  readonly by: { readonly [R in Role]: Tally };
}

const newTally = (): Tally => ({ histogram: newHistogram(), calls: 0, errors: 0, open: 0, reasons: new Map() });
const newBook = (phase: Phase): Book => ({
  phase,
  by: { good: newTally(), other: newTally(), probe: newTally() },
});

let book = newBook('warm-up');
const say = (message: FromBystanders): void => void process.send?.(message);

/** Runs a call within the current phase. The call resolves, or rejects with the reason. */
async function count(role: Role, call: () => Promise<void>): Promise<void> {
  const mine = book.by[role];
  mine.calls++;
  mine.open++;
  const since = performance.now();
  try {
    await inTime(call());
    record(mine.histogram, performance.now() - since);
  } catch (error) {
    mine.errors++;
    const reason = (error as Error).message;
    if (mine.reasons.has(reason) || mine.reasons.size < maxReasons) {
      mine.reasons.set(reason, (mine.reasons.get(reason) ?? 0) + 1);
    }
  } finally {
    mine.open--;
  }
}

function inTime(call: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${patienceMs / 1_000} s`)), patienceMs);
    call.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

function openSession({ port, tls }: BystanderSettings, from: string): ClientHttp2Session {
  const session = connect(`${tls ? 'https' : 'http'}://127.0.0.1:${port}`, {
    createConnection: () => dial({ port, tls, from }, 'h2'),
  });
  session.on('error', () => {});
  session.setMaxListeners(0);
  return session;
}

/** One gRPC Publish; resolves when it is accepted. */
function publish(session: ClientHttp2Session, key: string, message: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': `${service}Publish`,
      'content-type': 'application/grpc+proto',
      te: 'trailers',
      authorization: bearer(key),
    });
    let status: string | undefined;
    const read = (headers: { readonly 'grpc-status'?: string | string[] | undefined }): void => {
      if (headers['grpc-status'] !== undefined) status = String(headers['grpc-status']);
    };
    stream.on('response', read);
    stream.on('trailers', read);
    stream.on('error', () => {});
    stream.resume();
    stream.on('close', () => {
      if (status === '0') resolve();
      else reject(new Error(status === undefined ? `closed with code ${stream.rstCode}` : `gRPC status ${status}`));
    });
    stream.end(envelope(message));
  });
}

function startGood(settings: BystanderSettings): void {
  const messageOf = publishRequests(eventsOfCall, 11);
  const from = '127.0.0.2';
  let session = openSession(settings, from);
  let n = 0;
  setInterval(() => {
    const message = messageOf(`good-${process.pid}-${n++}`);
    if (n % newcomerEvery === 0) {
      const fresh = openSession(settings, from);
      void count('good', () => publish(fresh, settings.goodKey, message)).finally(() => fresh.destroy());
      return;
    }
    if (session.closed || session.destroyed) session = openSession(settings, from);
    const mine = session;
    void count('good', () => publish(mine, settings.goodKey, message));
  }, goodEveryMs);
}

/** One HTTP/1.1 request; resolves when its status is `wanted`. */
function ask(
  { port, tls }: BystanderSettings,
  agent: Agent | undefined,
  from: string,
  ask: { method: string; path: string; headers: Readonly<{ [name: string]: string }>; body: string; wanted: number },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const { method, path, headers } = ask;
    const options = { host: '127.0.0.1', port, localAddress: from, method, path, headers, rejectUnauthorized: false };
    const call = (tls ? requestTls : requestPlain)({ ...options, agent: agent ?? false }, (response) => {
      response.resume();
      response.once('end', () => {
        if (response.statusCode === ask.wanted) resolve();
        else reject(new Error(`HTTP status ${response.statusCode}`));
      });
      response.once('error', reject);
    });
    call.once('error', reject);
    call.end(ask.body);
  });
}

function startOther(settings: BystanderSettings): void {
  const agent = new (settings.tls ? TlsAgent : Agent)({ keepAlive: true });
  let n = 0;
  setInterval(() => {
    const body = JSON.stringify({
      eventId: `other-${process.pid}-${n++}`,
      type: 'EVENT_TYPE_CLICK',
      occurredAt: new Date().toISOString(),
    });
    const headers = {
      authorization: bearer(settings.otherKey),
      'content-type': 'application/json',
      'content-length': String(body.length),
    };
    const call = { method: 'POST', path: '/v1/events', headers, body, wanted: 202 };
    void count('other', () => ask(settings, agent, '127.0.0.3', call));
  }, otherEveryMs);
}

function startProbe(settings: BystanderSettings): void {
  const call = { method: 'GET', path: '/readyz', headers: { connection: 'close' }, body: '', wanted: 200 };
  setInterval(() => void count('probe', () => ask(settings, undefined, '127.0.0.4', call)), probeEveryMs);
}

function seenOf({ histogram, calls, errors, reasons }: Tally): Seen {
  const { p50, p99 } = quantiles(histogram);
  const told = (ms: number): number | null => (Number.isNaN(ms) ? null : ms);
  return { calls, errors, p50: told(p50), p99: told(p99), reasons: Object.fromEntries(reasons) };
}

async function next(phase: Phase | undefined): Promise<void> {
  const ended = book;
  book = newBook(phase ?? 'after');
  const { good, other, probe } = ended.by;
  while (good.open + other.open + probe.open > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  const seen: PhaseSeen = { good: seenOf(good), other: seenOf(other), probe: seenOf(probe) };
  say({ type: 'seen', phase: ended.phase, seen });
}

process.on('message', (message: ToBystanders) => {
  if (message.type === 'next') return void next(message.phase);
  startGood(message.settings);
  startOther(message.settings);
  startProbe(message.settings);
  say({ type: 'begun' });
});
// The run is gone.
process.on('disconnect', () => process.exit(1));
