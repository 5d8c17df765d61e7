/**
 * A load process: makes batches, sends them, measures their acks. It takes its orders over IPC (protocol.ts), so that
 * it shares no event loop and no garbage collector with anything else.
 *
 *   pace.ts          when to send (open and closed loop)
 *   payload.ts       what is sent: encoded once, patched in place
 *   generator.ts     the core: in flight, retries, latencies
 *   sender.ts        the seam to a way of sending: send-streams.ts, send-unary.ts (both over h2-link.ts), send-log.ts,
 *                    compare/send-http.ts; publish-stream.ts and unary-call.ts are one call; grpc-answers.ts and unary-methods.ts read
 *                    what comes back
 *   latency.ts       histograms
 */
import type { EventBatch } from '#gen/sluice/event/v1/event_pb.js';
import { makeBatch, type Random } from '../lib/testing/batches.js';
import { packHistogram } from '../lib/testing/latency.js';
import { prepareJson, prepareOtlp } from './compare/payloads.js';
import { sendOverHttp } from './compare/send-http.js';
import { createGenerator, type Generator } from './generator.js';
import { say as sayAny, sayFailed, soon, takeOrders } from './load-child.js';
import { createClosedLoop, createOpenLoop } from './pace.js';
import { type Prepared, prepare } from './payload.js';
import type { FromLoad, LoadSettings, ToLoad } from './protocol.js';
import { sendToLog } from './send-log.js';
import { sendOverStreams } from './send-streams.js';
import { sendUnary } from './send-unary.js';
import type { Sender, SenderEvents } from './sender.js';
import { exportLogs } from './unary-methods.js';

/**
 * Different events that take turns: more than a branch predictor can learn by heart, and so many that what a send does not
 * change (all but event_id) comes again in a block of ClickHouse no more often than a session's events do.
 */
const differentEvents = 32_000;
const progressEveryMs = 500;

const say = (message: FromLoad): void => sayAny(message);

let generator: Generator | undefined;
let sender: Sender | undefined;
let settings: LoadSettings | undefined;
let timer: NodeJS.Timeout | undefined;
let told = false;

/** Sends what is due and comes back when the next is: by timer, or after the next round of I/O when an ack made room. */
function run(): void {
  if (generator === undefined) return;
  const wait = generator.tick();
  if (generator.error !== undefined && !told) {
    told = true;
    sayFailed(generator.error);
  }
  clearTimeout(timer);
  // Timers have whole milliseconds; rounding up makes a batch leave late, which the ack latency then includes.
  timer = setTimeout(run, Math.max(1, Math.floor(wait)));
}

const runSoon = soon(run);

/** Moves the events of a batch to any time of so many days. */
function spread(random: Random, batch: EventBatch, days: number): EventBatch {
  for (const { occurredAt } of batch.events) {
    if (occurredAt !== undefined) occurredAt.seconds += BigInt(Math.floor(random() * days * 86_400));
  }
  return batch;
}

function messageFor({ target, tenant, batch: events, spreadDays: days }: LoadSettings, seed: number): Prepared {
  if (target.kind === 'json') return prepareJson({ events, seed });
  if (target.kind === 'otlp') return prepareOtlp({ events, seed });
  return prepare({
    target: target.kind,
    events,
    seed,
    tenant,
    ...(days === undefined ? {} : { batch: (random: Random) => spread(random, makeBatch(random, events), days) }),
  });
}

async function senderTo({ target, tenant, inFlight }: LoadSettings, events: SenderEvents): Promise<Sender> {
  switch (target.kind) {
    case 'gateway':
      return sendOverStreams(target, events);
    case 'otlp':
      return sendUnary({ ...target, protocol: 'grpc' }, exportLogs, events);
    case 'json':
      return sendOverHttp({ ...target, connections: inFlight }, events);
    case 'log':
      return sendToLog({ ...target, tenant }, events);
    default: {
      const never: never = target;
      throw new Error(`unknown target ${String(never)}`);
    }
  }
}

async function configure(given: LoadSettings): Promise<void> {
  settings = given;
  const count = Math.min(given.inFlight, Math.max(4, Math.ceil(differentEvents / given.batch)));
  const messages = Array.from({ length: count }, (_, i) => messageFor(given, given.seed * 65_536 + i));
  const made = createGenerator({ messages, inFlight: given.inFlight, run: (Date.now() ^ (process.pid << 16)) >>> 0 });
  generator = made;
  const events = {
    outcome: (...outcome: Parameters<typeof made.events.outcome>) => {
      made.events.outcome(...outcome);
      runSoon();
    },
    writable: runSoon,
    failed: (error: Error) => {
      made.events.failed(error);
      runSoon();
    },
  };
  sender = await senderTo(given, events);
  made.attach(sender);
  const bytes = messages.reduce((sum, message) => sum + message.batch.end - message.batch.start, 0);
  say({ type: 'ready', bytesPerEvent: bytes / messages.length / given.batch });
  setInterval(() => {
    say({ type: 'progress', acked: made.total.acked, resends: made.total.resends });
  }, progressEveryMs);
}

/** After the window: everything in flight gets its ack, or the patience ends. */
async function finish(patienceMs: number): Promise<void> {
  if (generator === undefined) return;
  generator.close();
  generator.pace(undefined);
  const until = performance.now() + patienceMs;
  while (generator.inFlight > 0 && generator.error === undefined && performance.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const { ms, counts, ack, lag } = generator.window();
  say({
    type: 'result',
    ms,
    counts,
    total: { ...generator.total },
    inFlight: generator.inFlight,
    ack: packHistogram(ack),
    lag: packHistogram(lag),
    lastReason: generator.lastReason,
  });
}

function begin(rate: number | 'max'): void {
  if (settings === undefined) throw new Error('begin came before configure');
  generator?.pace(rate === 'max' ? createClosedLoop() : createOpenLoop(rate / settings.batch, performance.now()));
  run();
}

takeOrders<ToLoad>(async (order) => {
  switch (order.type) {
    case 'configure':
      return configure(order.settings);
    case 'begin':
      return begin(order.rate);
    case 'mark':
      return generator?.mark();
    case 'stop':
      return finish(order.patienceMs);
    case 'end':
      await sender?.close();
      return process.exit(0);
    default: {
      const never: never = order;
      throw new Error(`unknown order ${String(never)}`);
    }
  }
});
