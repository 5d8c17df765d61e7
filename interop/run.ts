/**
 * One run: a real stack, the clients one after another, then the rows and the audit.
 */
import { type TestStack, withStack } from '../cli/demo/testing/stack.js';
import { sluice } from '../cli/testing/running-stack.js';
import { type CaseName, type CaseOutcome, faultOf, floodCalls, floodRefused, type Task } from './cases.js';
import type { ForeignClient, Listener } from './clients/client.js';
import { openStoredRows, type StoredRows } from './stored-rows.js';
import { startSwallowingProxy } from './swallow-answer.js';
import { Missing } from './workshop.js';

/** What a client did. */
export interface ClientResult {
  readonly client: ForeignClient;
  /** The word why it was left out; undefined: it ran. */
  readonly skipped?: string;
  /** Begins its event ids. */
  readonly run: string;
  /** By case: undefined means that all was right. */
  readonly faults: Map<CaseName, string | undefined>;
  readonly outcomes: readonly CaseOutcome[];
}

export interface RunResult {
  readonly clients: readonly ClientResult[];
  /** Of `sluice audit`: its last lines, and whether its exit code was 0. */
  readonly audit: { readonly ok: boolean; readonly text: string };
}

export interface RunOptions {
  readonly clients: readonly ForeignClient[];
  readonly cases: readonly CaseName[];
  /** Folder of built clients. */
  readonly cache: string;
  readonly say: (line: string) => void;
}

/** A batch of so many bytes is above the limit of 1 MiB, and below what ends a stream. */
const oversizeBytes = 1_060_000;
const restartMillis = 6_000;
/** From `started` until the gateway is ended. */
const restartAfterMs = 1_500;
/** Pages for browsers are served from free ports. */
const gatewayFlags = ['--cors-origins', '*'];
const storedWithinMs = 20_000;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const wrongKey = `slk_000000000000_${'A'.repeat(32)}`;

/** Why a client does not run: a tool is not there, or it cannot be built. */
interface NotRun {
  readonly skipped?: string;
  readonly broken?: string;
}

/** Builds every client, so that no compiler runs beside a case. */
async function prepareAll({ clients, cache, say }: RunOptions): Promise<Map<ForeignClient, NotRun>> {
  const left = new Map<ForeignClient, NotRun>();
  for (const client of clients) {
    try {
      await client.prepare(cache, (line) => say(`${client.name}: ${line}`));
    } catch (error) {
      const { message } = error as Error;
      left.set(client, error instanceof Missing ? { skipped: message } : { broken: message });
      say(`${client.name}: ${error instanceof Missing ? 'skipped' : 'cannot be built'}: ${message}`);
    }
  }
  return left;
}

export async function run(options: RunOptions): Promise<RunResult> {
  const left = await prepareAll(options);
  options.say('starting nats-server, ClickHouse, a worker and a gateway …');
  return withStack((stack) => Promise.race([runAll(stack, left, options), interruption()]), gatewayFlags);
}

/** Rejects when the run is asked to end, so that the stack is ended too; never resolves. */
const interruption = (): Promise<never> =>
  new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.once(signal, () => reject(new Error(`interrupted by ${signal}`)));
  });

async function runAll(
  stack: TestStack,
  left: ReadonlyMap<ForeignClient, NotRun>,
  options: RunOptions,
): Promise<RunResult> {
  const rows = openStoredRows(stack.clickhouse);
  try {
    const clients: ClientResult[] = [];
    for (const client of options.clients) {
      const { skipped, broken } = left.get(client) ?? {};
      if (skipped !== undefined) clients.push({ client, skipped, run: '', faults: new Map(), outcomes: [] });
      else if (broken !== undefined) clients.push(brokenClient(client, broken, options.cases));
      else clients.push(await runClient(client, stack, options));
    }
    await countRows(clients, rows, options.say);
    const addresses = ['--nats-url', stack.nats, '--clickhouse-url', stack.clickhouse];
    const { code, out, err } = await sluice(['audit', ...addresses]);
    return { clients, audit: { ok: code === 0, text: `${out}${code === 0 ? '' : err}`.trim() } };
  } finally {
    await rows.close();
  }
}

const brokenClient = (client: ForeignClient, why: string, wanted: readonly CaseName[]): ClientResult => ({
  client,
  run: '',
  faults: new Map(
    client.cases.filter((name) => wanted.includes(name)).map((name) => [name, `cannot be built: ${why}`]),
  ),
  outcomes: [],
});

async function runClient(client: ForeignClient, stack: TestStack, options: RunOptions): Promise<ClientResult> {
  const port = Number(new URL(stack.gateway).port);
  const proxy = await startSwallowingProxy(port);
  const faults = new Map<CaseName, string | undefined>();
  const outcomes: CaseOutcome[] = [];
  let restarts: Promise<void> = Promise.resolve();
  const task: Task = {
    client: client.name,
    address: `127.0.0.1:${port}`,
    swallow: `127.0.0.1:${proxy.port}`,
    key: stack.key,
    wrongKey,
    run: `${client.name}-${Date.now().toString(36)}`,
    floodCalls,
    floodRefused,
    oversizeBytes,
    restartMillis,
    cases: client.cases.filter((name) => options.cases.includes(name)),
  };
  let since = performance.now();
  const listener: Listener = {
    outcome(outcome) {
      const unhurt = outcome.case === 'retry' && proxy.swallowed() === 0;
      const fault = faultOf(outcome) ?? (unhurt ? 'the proxy lost no answer' : undefined);
      faults.set(outcome.case, fault);
      outcomes.push(outcome);
      const seconds = ((performance.now() - since) / 1_000).toFixed(1);
      since = performance.now();
      const note = fault === undefined && outcome.note !== '' ? `: ${outcome.note}` : '';
      options.say(`${client.name} ${outcome.case}: ${fault ?? 'ok'} (${seconds} s)${note}`);
    },
    started(name) {
      const restart = name === 'kill' ? stack.crash : stack.replace;
      restarts = restarts.then(() => pause(restartAfterMs)).then(() => restart('gateway'));
    },
  };
  try {
    await client.run(task, listener);
  } catch (error) {
    for (const name of task.cases) if (!faults.has(name)) faults.set(name, (error as Error).message);
    options.say(`${client.name}: ${(error as Error).message}`);
  }
  await restarts;
  await proxy.close();
  return { client, run: task.run, faults, outcomes };
}

/** Every event that a client heard to be accepted is one row, and nothing else of that case is there. */
async function countRows(
  clients: readonly ClientResult[],
  rows: StoredRows,
  say: (line: string) => void,
): Promise<void> {
  say('counting rows …');
  const end = performance.now() + storedWithinMs;
  for (const { client, run, faults, outcomes } of clients) {
    for (const outcome of outcomes) {
      let found = await rows.of(run, outcome.case);
      while (found.ids < outcome.accepted && performance.now() < end) {
        await pause(200);
        found = await rows.of(run, outcome.case);
      }
      if (found.rows === outcome.accepted && found.ids === outcome.accepted) continue;
      const fault = `accepted ${outcome.accepted}, stored ${found.rows} rows of ${found.ids} events`;
      faults.set(outcome.case, [faults.get(outcome.case), fault].filter((text) => text !== undefined).join('; '));
      say(`${client.name} ${outcome.case}: ${fault}`);
    }
  }
}
