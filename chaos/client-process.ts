/**
 * One customer: a process with the real SluiceClient that sends events at a steady rate and writes down what it hears (journal.ts).
 * The record is taken where the client hands a batch to its connection and where the answer comes in; the client itself is not changed.
 *
 * Batches that an earlier process of this customer sent and heard nothing of are sent again first, under their ids, as a host does that
 * keeps its batches on disk: as attempt 2 or higher, because the host does not know whether the first send arrived (DELIVER-1).
 *
 * A counting customer names its batches by a counter that each of its processes starts again, so that ids are used for other events
 * (counted-ids.ts).
 */
import { MiB } from '../lib/units.js';
import { createBatcher } from '../sdk-gen/typescript/src/batcher.js';
import { SluiceClient } from '../sdk-gen/typescript/src/client.js';
import { systemClock } from '../sdk-gen/typescript/src/clock.js';
import type { Durability, Link, LinkEvents, Outgoing } from '../sdk-gen/typescript/src/delivery.js';
import { openIngestStream } from '../sdk-gen/typescript/src/ingest-stream.js';
import type { SluiceClientOptions } from '../sdk-gen/typescript/src/options.js';
import { createClientTrace } from './client-trace.js';
import { asItIs, type Counter, createCountedIds } from './counted-ids.js';
import { makeEvent } from './events.js';
import { type BatchHistory, type Journal, openJournal, readJournal } from './journal.js';

/** The one argument of the process, as JSON. */
export interface ClientTask {
  readonly source: number;
  readonly baseUrl: string;
  readonly key: string;
  /** Events per second. */
  readonly rate: number;
  readonly journal: string;
  /** Of earlier processes of this customer, by source: their unknown batches are sent again. */
  readonly leftovers: readonly { readonly source: number; readonly journal: string }[];
  readonly client: Partial<SluiceClientOptions>;
  /** Its batches are named by a counter. */
  readonly counter?: Counter | undefined;
}

/** What it says over IPC. */
export type ClientMessage =
  /** Events that were acknowledged since the last message; `at` is Date.now() of the first of them. */
  | { readonly kind: 'acked'; readonly events: number; readonly at: number }
  /** Nothing is open any more of an earlier process. */
  | { readonly kind: 'resent'; readonly source: number }
  /** After SIGTERM: everything is settled, or was given up. */
  | { readonly kind: 'closed'; readonly undelivered: number };

const tickMs = 20;
const tellMs = 100;
/** How long a close may take: the faults are over by then. */
const closeMs = 60_000;

const task = JSON.parse(process.argv[2] as string) as ClientTask;
const say = (message: ClientMessage): void => {
  process.send?.(message);
};

let acked = 0;
let ackedAt = 0;
const countAck = (events: number): void => {
  if (acked === 0) ackedAt = Date.now();
  acked += events;
};
const tellAcks = (): void => {
  if (acked > 0) say({ kind: 'acked', events: acked, at: ackedAt });
  acked = 0;
};

/** Number of an event in its source, from the first field of its encoding. */
function numberOf(bytes: Uint8Array, at: number): number {
  let i = at + 1;
  while ((bytes[i] as number) > 127) i++;
  // Tag and length of event_id, which comes first.
  const from = i + 3;
  const id = Buffer.from(bytes.buffer, bytes.byteOffset + from, bytes[i + 2] as number).toString('latin1');
  return Number(id.slice(id.indexOf('-') + 1));
}

/** First number and count of the events of a batch, which follow one another. */
function rangeOf(bytes: Uint8Array): { first: number; count: number } {
  const first = numberOf(bytes, 0);
  let count = 0;
  for (let at = 0; at < bytes.length; count++) {
    if (numberOf(bytes, at) !== first + count)
      throw new Error(`a batch holds event ${numberOf(bytes, at)} at place ${count}, and begins with ${first}`);
    let length = 0;
    let shift = 0;
    let i = at + 1;
    for (; (bytes[i] as number) > 127; i++, shift += 7) length |= ((bytes[i] as number) & 127) << shift;
    length |= (bytes[i] as number) << shift;
    at = i + 1 + length;
  }
  return { first, count };
}

/** Of minutes: a client here sends a few hundred batches a second at most. */
const trace = createClientTrace(100_000);
const clock = trace.watch(systemClock);

/** For the log of this customer: what happened to its connections. */
const note = (line: string): void => {
  trace.note(line);
  process.stderr.write(`${new Date().toISOString()} ${task.source} ${line}\n`);
};

let connections = 0;

/** A connection that writes down what goes out and what comes in. */
function createRecordedLink(journal: Journal, durability: Durability, events: LinkEvents): Link {
  const counts = new Map<string, number>();
  const number = ++connections;
  note(`connection ${number}: connecting`);
  const link = openIngestStream(
    { baseUrl: task.baseUrl, key: task.key, userAgent: 'sluice-chaos/1', durability, clock },
    {
      ...events,
      onAccepted(batchId, result) {
        trace.note(`connection ${number}: ${batchId} accepted`);
        journal.accepted(batchId, result.position);
        countAck(counts.get(batchId) ?? 0);
        counts.delete(batchId);
        events.onAccepted(batchId, result);
      },
      onLimits(limits) {
        note(`connection ${number}: connected`);
        events.onLimits(limits);
      },
      onFailed(batchId, fault) {
        note(
          `connection ${number}: ${batchId} failed: ${fault.code}, ${fault.message} Again in ${fault.retryAfterMs} ms.`,
        );
        events.onFailed(batchId, fault);
      },
      onDraining() {
        note(`connection ${number}: the gateway goes away`);
        events.onDraining();
      },
      onEnd(error) {
        note(`connection ${number}: ended: ${error?.message ?? 'well'}`);
        events.onEnd(error);
      },
    },
  );
  return {
    ...link,
    send(batch) {
      const { first, count } = rangeOf(batch.bytes);
      counts.set(batch.batchId, count);
      journal.sent({ batchId: batch.batchId, first, count, attempt: batch.attempt });
      trace.note(`connection ${number}: sends ${batch.batchId}, attempt ${batch.attempt}`);
      link.send(batch);
    },
    finish(withinMs) {
      trace.note(`connection ${number}: no more sends`);
      link.finish(withinMs);
    },
    abort() {
      trace.note(`connection ${number}: given up`);
      link.abort();
    },
  };
}

/** The bytes that the earlier process had sent under this id. */
function encodeAgain(source: number, { first, count }: BatchHistory): Uint8Array {
  let sealed: Uint8Array | undefined;
  const most = 64 * MiB;
  const batcher = createBatcher({
    batchBytes: most,
    batchEvents: most,
    keepsUp: () => true,
    maxBatchBytes: () => most,
    maxBatchEvents: () => most,
    makeId: () => '',
    onSealed: ({ bytes }) => {
      sealed = bytes;
    },
  });
  for (let n = first; n < first + count; n++) batcher.add(makeEvent(source, n), 0);
  batcher.seal();
  return sealed as Uint8Array;
}

/** Sends the unknown batches of an earlier process until each is accepted. */
async function sendAgain(source: number, file: string): Promise<void> {
  const open = new Map([...readJournal(file)].filter(([, { state }]) => state === 'unknown'));
  const journal = openJournal(file);
  while (open.size > 0) {
    await new Promise<void>((resolve) => {
      const inFlight: Outgoing[] = [...open].map(([batchId, batch]) => {
        // 0 said nothing; 1 would say that it was never sent.
        batch.attempt = Math.max(1, batch.attempt) + 1;
        return { batchId, bytes: encodeAgain(source, batch), attempt: batch.attempt };
      });
      let unanswered = inFlight.length;
      const end = (): void => {
        clearTimeout(patience);
        link.abort();
        setTimeout(resolve, 200);
      };
      const answered = (): void => {
        if (--unanswered === 0) end();
      };
      const patience = setTimeout(end, 5_000);
      const link = createRecordedLink(journal, 'accepted', {
        onLimits: () => {
          for (const batch of inFlight) link.send(batch);
        },
        onAccepted(batchId) {
          open.delete(batchId);
          answered();
        },
        onFailed: answered,
        onCommitted: () => {},
        onDraining: () => {},
        onEnd: end,
      });
    });
  }
  journal.close();
  say({ kind: 'resent', source });
}

const journal = openJournal(task.journal);
const durability = task.client.durability ?? 'accepted';
const named = task.counter === undefined ? asItIs : createCountedIds(task.counter, durability === 'accepted');
const client = new SluiceClient(
  {
    ...task.client,
    baseUrl: task.baseUrl,
    key: task.key,
    clock,
    onError: ({ code, message }) => note(`trouble: ${code}, ${message}`),
    onRejected: ({ batchId, code }) => journal.refused(named.nameOf(batchId), code),
  },
  (events) => named.link(events, (inner) => createRecordedLink(journal, durability, inner)),
);

let closing = false;
let n = 0;
let owed = 0;
let last = performance.now();
const producing = setInterval(() => {
  const now = performance.now();
  // After a standstill it goes on at its rate, and does not make up for the time.
  owed += (Math.min(now - last, 10 * tickMs) / 1_000) * task.rate;
  last = now;
  for (; owed >= 1 && !closing; owed--) {
    if (!client.track(makeEvent(task.source, n))) {
      // The buffer is full: slow down.
      owed = 0;
      break;
    }
    n++;
  }
}, tickMs);
setInterval(tellAcks, tellMs);

const resending = (async () => {
  for (const { source, journal: file } of task.leftovers) await sendAgain(source, file);
})();

async function close(): Promise<void> {
  if (closing) return;
  closing = true;
  clearInterval(producing);
  note('closing');
  const watching = setInterval(() => trace.note(`still closing: ${JSON.stringify(client.stats())}`), 1_000);
  const patience = new Promise<void>((resolve) => setTimeout(resolve, closeMs).unref());
  const [report] = await Promise.all([client.close({ timeoutMs: closeMs }), Promise.race([resending, patience])]);
  clearInterval(watching);
  if (report.undelivered.events > 0) {
    const { events, batches } = report.undelivered;
    note(`gave up ${events} events in ${batches} batches; what it did before:`);
    process.stderr.write(`${trace.lines().join('\n')}\n`);
  }
  tellAcks();
  say({ kind: 'closed', undelivered: report.undelivered.events });
  process.exit(0);
}
process.on('SIGTERM', () => void close());
// The harness ends its processes itself; a Ctrl-C of the terminal reaches them too.
process.on('SIGINT', () => {});
process.on('disconnect', () => process.exit(1));
