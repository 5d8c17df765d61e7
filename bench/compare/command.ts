/**
 * `npm run bench -- compare`: our gateway beside the same front door built in other ways.
 *
 *   command.ts        the command and its table (this file)
 *   contenders.ts     who takes part, each with its stream and its load
 *   turns.ts          rounds of short windows, medians, the open loop at a common rate
 *   payloads.ts       batches for peers that take JSON or OTLP; send-http.ts sends JSON
 *   parse.ts          `bench -- parse`: readers of one batch inside one process
 */
import { cpus } from 'node:os';
import { Command, InvalidArgumentError } from 'commander';
import { tableLines } from '../../lib/table.js';
import { positive } from '../options.js';
import { peers } from '../peers/index.js';
import { ours, withField } from './contenders.js';
import { cpuRatio, type Standing, takeTurns } from './turns.js';

interface CommandLine {
  readonly peers: readonly string[];
  readonly rounds: number;
  readonly seconds: number;
  readonly warmUp: number;
  readonly latencySeconds: number;
  readonly batch: number;
  readonly inFlight: number;
  readonly seed: number;
  readonly gatewayFlag: readonly string[];
  readonly json: boolean;
}

/** What the old platform says of itself; not measured here. */
const quoted = {
  source: 'its own published load-test claims, on its own hardware; not measured here',
  rows: [
    { what: 'one replica with 2 CPUs', acked_events_per_s: 350_000 },
    { what: 'its cluster, peak', acked_events_per_s: 1_050_000, p95_ms: 85 },
    { what: 'its cluster, 15 minutes', acked_events_per_s: 509_000 },
  ],
} as const;

function parsePeers(text: string): string[] {
  const names = text.split(',').map((name) => name.trim());
  const unknown = names.find((name) => !peers.some((peer) => peer.name === name));
  if (unknown !== undefined) {
    throw new InvalidArgumentError(
      `There is no peer "${unknown}"; known are ${peers.map(({ name }) => name).join(', ')}.`,
    );
  }
  return names;
}

const help = `
Peers:
${peers.map(({ name, summary }) => `  ${name.padEnd(14)}${summary}`).join('\n')}

How it is measured:
  All take the same events from the same seeds, hold them to the same field rules (but otelcol, which has none), and
  answer after the ack of one and the same nats-server (one file replica), each from a stream of its own. They run side
  by side and take turns: short closed-loop windows, in rounds that begin with another one each time; medians over the
  rounds, ratios within a round.
  Then each is sent the same open-loop rate, half of what the slowest reached (one that reaches less than a twentieth of
  the fastest: half of its own, and the table says so): P50, P95, P99 from the intended send time.
  The load is encoded once and patched in place, for JSON and OTLP too; its process has a core to share like all others.
  CPU is that of the server's process (all threads), from /proc. Peers in Go may use both cores; those in Node, and ours,
  have one thread that matters: read CPU-s per million, not events/s alone.

Examples:
  npm run bench -- compare
  npm run bench -- compare --peers fastify,fiber --rounds 9 --json`;

export function compareCommand(): Command {
  return new Command('compare')
    .description(
      'our gateway beside Fastify, connect-node, grpc-js, Go Fiber and OpenTelemetry, interleaved, in one table',
    )
    .option(
      '--peers <names>',
      'which, separated by commas',
      parsePeers,
      peers.map(({ name }) => name),
    )
    .option('--rounds <n>', 'rounds, of which the median counts', positive(1_000), 5)
    .option('--seconds <s>', 'length of each closed-loop window', positive(600, false), 3)
    .option('--warm-up <s>', 'load before each window', positive(600, false), 1.5)
    .option('--latency-seconds <s>', "length of each peer's open-loop window", positive(600, false), 5)
    .option('--batch <events>', 'events of a batch', positive(10_000), 500)
    .option('--in-flight <batches>', 'most batches without an answer', positive(4_096), 64)
    .option('--seed <n>', 'seed of the events', positive(1_000_000), 1)
    .option(
      '--gateway-flag <flag>',
      'pass a flag to our gateway; may be repeated',
      (flag, all: string[]) => [...all, flag],
      [],
    )
    .option('--json', 'end standard output with one line of JSON', false)
    .addHelpText('after', help)
    .action(async (given: CommandLine) => {
      const { json, gatewayFlag, ...options } = given;
      const progress = (line: string) => process.stderr.write(`compare: ${line}\n`);
      await withField({ ...options, gatewayFlags: gatewayFlag, progress }, async (field) => {
        const { standings, common_rate } = await takeTurns(field, { ...options, progress });
        const machine = { cpus: cpus().length, model: cpus()[0]?.model ?? 'unknown', node: process.version };
        process.stdout.write(
          `compare: batches of ${options.batch} events, ${options.rounds} rounds of ${options.seconds} s,` +
            ` ${machine.cpus} × ${machine.model}, Node ${machine.node}\n\n${toTable(standings, common_rate)}\n`,
        );
        for (const { name, reason } of field.skipped) process.stdout.write(`${name}: ${reason}\n`);
        if (!json) return;
        const all = standings.map((one) => ({ ...one, cpu_ratio: cpuRatio(standings, one.name) }));
        const result = {
          case: 'compare',
          ...options,
          common_rate,
          standings: all,
          skipped: field.skipped,
          quoted,
          machine,
        };
        process.stdout.write(
          `${JSON.stringify(result, (_, value) => (typeof value === 'number' ? rounded(value) : value))}\n`,
        );
      });
    });
}

const rounded = (value: number): number | null =>
  !Number.isFinite(value) ? null : Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(4));

/** Figures of everybody, each with its ratio to ours in brackets. */
export function toTable(standings: readonly Standing[], commonRate: number): string {
  const mine = standings.find((one) => one.name === ours);
  if (mine === undefined) throw new Error(`a comparison needs ${ours}`);
  const cell = (text: string, ratio: number): string =>
    `${text} ${`(${ratio.toFixed(ratio < 10 ? 2 : 1)})`.padStart(7)}`;
  const whole = (value: number) => Math.round(value).toLocaleString('en-US');
  const fixed = (value: number) => value.toFixed(value < 10 ? 2 : 1);
  const figure = (one: Standing, show: (value: number) => string, pick: (of: Standing) => number) =>
    cell(show(pick(one)), pick(one) / pick(mine));
  const columns: readonly [string, (one: Standing) => string][] = [
    ['', (one) => one.name],
    ['events/s', (one) => figure(one, whole, (of) => of.acked_events_per_s)],
    ['server CPU-s/M', (one) => cell(fixed(one.cpu_s_per_million.server), cpuRatio(standings, one.name))],
    ['nats CPU-s/M', (one) => figure(one, fixed, (of) => of.cpu_s_per_million.nats)],
    ['P50 ms', (one) => figure(one, fixed, (of) => of.ack_ms.p50)],
    ['P95 ms', (one) => figure(one, fixed, (of) => of.ack_ms.p95)],
    ['P99 ms', (one) => figure(one, fixed, (of) => of.ack_ms.p99)],
    ['RSS MiB', (one) => figure(one, whole, (of) => of.rss_mib)],
    ['wire B/event', (one) => figure(one, whole, (of) => of.wire_bytes_per_event)],
    ['log B/event', (one) => figure(one, whole, (of) => of.log_bytes_per_event)],
  ];
  const rows = [columns.map(([title]) => title), ...standings.map((one) => columns.map(([, show]) => show(one)))];
  const lines = tableLines(rows);
  lines.push('');
  for (const row of quoted.rows) {
    const p95 = 'p95_ms' in row ? `, P95 ${row.p95_ms} ms` : '';
    const ratio = (row.acked_events_per_s / mine.acked_events_per_s).toFixed(2);
    lines.push(`quoted: ${row.what}: ${whole(row.acked_events_per_s)} events/s (${ratio})${p95}`);
  }
  lines.push(`  (the old platform: ${quoted.source})`);
  lines.push(
    '',
    `In brackets: the ratio to ${ours}. events/s and CPU: closed loop, median of the rounds (CPU ratios: of ratios inside a`,
    `round). P50 to P99: open loop at ${whole(commonRate)} events/s, from the intended send time.`,
  );
  for (const one of standings.filter((each) => each.open_rate < commonRate)) {
    lines.push(
      `${one.name} is too slow for that: its P50 to P99 are at ${whole(one.open_rate)} events/s, half of its own.`,
    );
  }
  return lines.join('\n');
}
