/**
 * One run of the demo: streams a source through the client, waits until ClickHouse has it, shows it, and compares.
 *
 * Workers and ClickHouse may be killed meanwhile, and the gateway restarted: the client and the questions to ClickHouse
 * keep trying as long as something moves now and then.
 */
import { UsageError } from '../../lib/errors.js';
import { MiB } from '../../lib/units.js';
import { type EventInit, EventType, SluiceClient } from '../../sdk-gen/typescript/src/index.js';
import { startProgress } from './progress.js';
import { describe, differences, formatMicros, type SentFigures } from './report.js';
import { createRunFigures } from './run-figures.js';
import type { Source } from './source.js';
import type { StackAddress } from './stack.js';

export interface RunOptions {
  readonly stack: StackAddress;
  readonly source: Source;
  /** Names the run: event ids begin with it. */
  readonly run: string;
  readonly clickhouse: { readonly user: string; readonly password: string; readonly database: string };
  readonly out: NodeJS.WriteStream;
  readonly signal: AbortSignal;
  /** The run fails when nothing moved for so long, ms. @default 180000 */
  readonly stallMs?: number;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const count = (value: number): string => Math.round(value).toLocaleString('en');

/** A name of a run: no two are the same, later ones sort later. */
export const newRunName = (nowMs: number): string =>
  `demo-${nowMs.toString(36)}${Math.floor(Math.random() * 36 ** 4)
    .toString(36)
    .padStart(4, '0')}`;

/** As the table writes it: EventType.CLICK → "click". */
const typeName = (type: EventType | undefined): string => (EventType[type ?? 0] ?? 'unspecified').toLowerCase();

/** @returns whether what is stored is exactly what was sent */
export async function runDemo(options: RunOptions): Promise<boolean> {
  const { out, source, signal, run } = options;
  const say = (line: string): void => {
    out.write(`${line}\n`);
  };
  const startedMs = Date.now();
  let trouble = '';
  const reader = createRunFigures({
    ...options.clickhouse,
    url: options.stack.clickhouse,
    run,
    sinceMs: startedMs,
    signal,
    onTrouble: (message) => {
      trouble = `asking again: ${message.split('\n')[0]?.slice(0, 80)}`;
    },
  });
  try {
    say(`Streaming ${source.title} as run ${run}.`);
    for (const note of source.notes) say(`Note: ${note}.`);
    const { sent, refused, seconds } = await stream(options);
    say(
      `Sent and acknowledged ${count(sent.events - refused)} events in ${seconds.toFixed(1)} s (${count(sent.events / seconds)}/s).`,
    );
    if (refused > 0) say(`${count(refused)} events were refused, see above.`);
    const stored = async (): Promise<number> => {
      const now = await reader.count();
      trouble = '';
      return now;
    };
    await untilStored(options, stored, sent.events - refused, () => trouble);
    const figures = await reader.figures();
    say('');
    say(describe(figures));
    say('');
    const wrong = differences(sent, figures);
    if (refused > 0) wrong.unshift(`${count(refused)} events were refused by the gateway`);
    for (const line of wrong) say(`DIFFERS: ${line}`);
    if (wrong.length > 0) return false;
    const value = sent.valueMicros === 0n ? '' : `, total value ${formatMicros(sent.valueMicros)} on both sides`;
    say(`OK: sent = stored = distinct = ${count(figures.stored)} events${value}.`);
    return true;
  } finally {
    await reader.close();
  }
}

async function stream(options: RunOptions): Promise<{ sent: SentFigures; refused: number; seconds: number }> {
  const { out, source, signal, run } = options;
  const types = new Map<string, number>();
  let events = 0;
  let valueMicros = 0n;
  let trouble = '';
  const refusals = new Map<string, number>();
  const client = new SluiceClient({
    baseUrl: options.stack.gateway,
    key: options.stack.key,
    maxBufferBytes: 16 * MiB,
    onError: (error) => {
      trouble = `reconnecting: ${error.message.slice(0, 80)}`;
    },
    onRejected: ({ code, message, events: lost, rejections: [first] }) => {
      const what = first === undefined ? message : `${first.field}: ${first.message}`;
      const line = `${code}: ${what.slice(0, 200)}`;
      // A fault in every event is reported once.
      if (refusals.size < 20 || refusals.has(line)) refusals.set(line, (refusals.get(line) ?? 0) + lost);
    },
  });
  const progress = startProgress('Streaming', source.total, out);
  const began = performance.now();
  let lastDelivered = 0;
  let rate = 0;
  let movedAt = began;
  const show = (): void => {
    const { delivered, rejected, retries, connected } = client.stats();
    rate = rate * 0.7 + (delivered - lastDelivered) * 2 * 0.3;
    if (delivered > lastDelivered) {
      movedAt = performance.now();
      if (connected) trouble = '';
    }
    lastDelivered = delivered;
    const more = [
      `${count(events)} sent`,
      `${count(rate)}/s`,
      ...(retries > 0 ? [`${retries} retries`] : []),
      ...(trouble === '' ? [] : [trouble]),
    ];
    progress.update(delivered + rejected, `acknowledged; ${more.join(', ')}`);
  };
  const ticker = setInterval(show, 500);
  const stalled = (): boolean => performance.now() - movedAt > (options.stallMs ?? 180_000);
  /** Waits for the client, as long as something moves. */
  const patiently = async (wait: Promise<unknown>): Promise<void> => {
    let done = false;
    const finished = wait.then(() => {
      done = true;
    });
    while (!done) {
      signal.throwIfAborted();
      if (stalled()) throw new UsageError(`Nothing was acknowledged for a long time. ${trouble}`.trim());
      await Promise.race([finished, pause(500)]);
    }
  };
  try {
    for await (const event of source.events()) {
      const named: EventInit = { ...event, eventId: `${run}-${events.toString(36)}` };
      while (!client.track(named)) await patiently(client.ready());
      events++;
      const type = typeName(event.type);
      types.set(type, (types.get(type) ?? 0) + 1);
      valueMicros += event.valueMicros ?? 0n;
      // Ticker, acks and Ctrl-C get their turn.
      if (events % 2_000 === 0) {
        signal.throwIfAborted();
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    await patiently(client.flush());
    show();
  } finally {
    clearInterval(ticker);
    progress.stop();
    await client.close({ timeoutMs: 0 });
    for (const [line, lost] of refusals) out.write(`Refused ${count(lost)}: ${line}\n`);
  }
  const seconds = (performance.now() - began) / 1_000;
  return { sent: { events, types, valueMicros }, refused: client.stats().rejected, seconds };
}

/** Until ClickHouse has as many as were acknowledged, or nothing more comes. */
async function untilStored(
  options: RunOptions,
  stored: () => Promise<number>,
  wanted: number,
  trouble: () => string,
): Promise<void> {
  const progress = startProgress('Loading  ', wanted, options.out);
  const began = performance.now();
  let last = -1;
  let movedAt = began;
  const show = (): void => {
    const seconds = ((performance.now() - began) / 1_000).toFixed(1);
    const more = trouble() === '' ? '' : `; ${trouble()}`;
    progress.update(Math.max(0, last), `in ClickHouse, ${seconds} s after the last acknowledgement${more}`);
  };
  const ticker = setInterval(show, 500);
  try {
    for (;;) {
      options.signal.throwIfAborted();
      const now = await stored();
      if (now !== last) movedAt = performance.now();
      last = now;
      show();
      // Too many is for the comparison to say.
      if (now >= wanted || performance.now() - movedAt > (options.stallMs ?? 180_000)) return;
      await pause(300);
    }
  } finally {
    clearInterval(ticker);
    progress.stop();
  }
}
