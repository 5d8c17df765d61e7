/** docs/proxies.md is true: each protocol passes each proxy, and what it repeats is stored once. Skips with a word what is not installed. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type TestStack, withStack } from '../cli/demo/testing/stack.js';
import { type CaseName, type CaseOutcome, faultOf, type Task } from './cases.js';
import { foreignClients } from './clients/index.js';
import { type ProxyName, proxies, withProxy } from './proxies.js';
import { openStoredRows, type StoredRows } from './stored-rows.js';
import { startSwallowingProxy } from './swallow-answer.js';
import { defaultCache, find } from './workshop.js';

/** Client → cases, over HTTP/2; curl speaks HTTP/1.1. */
const plan: Readonly<Record<string, readonly CaseName[]>> = {
  'grpc-js': ['unary', 'stream', 'wrong-key', 'bad-event', 'too-large', 'deadline'],
  'buf-curl-grpcweb': ['unary'],
  'buf-curl': ['unary'],
  curl: ['unary', 'wrong-key', 'gzip'],
};

/** Envoy is on no PATH: PyPI's package puts it into a virtual environment. */
const programOf = (name: ProxyName): string | undefined => {
  const built = join(defaultCache, 'envoy', 'bin', 'envoy');
  return find(name) ?? (name === 'envoy' && existsSync(built) ? built : undefined);
};

const taskOf = (stack: TestStack, run: string, port: number, cases: readonly CaseName[]): Task => ({
  client: '',
  address: `127.0.0.1:${port}`,
  swallow: `127.0.0.1:${port}`,
  key: stack.key,
  wrongKey: `slk_000000000000_${'A'.repeat(32)}`,
  run,
  floodCalls: 0,
  floodRefused: 0,
  oversizeBytes: 1_060_000,
  restartMillis: 0,
  cases,
});

async function outcomesOf(clientName: string, task: Task): Promise<CaseOutcome[]> {
  const client = foreignClients.find(({ name }) => name === clientName);
  const outcomes: CaseOutcome[] = [];
  await client?.prepare(defaultCache, () => {});
  await client?.run(task, { outcome: (one) => void outcomes.push(one), started: () => {} });
  return outcomes;
}

async function stored(rows: StoredRows, run: string, { case: name, accepted }: CaseOutcome): Promise<void> {
  const end = performance.now() + 10_000;
  let found = await rows.of(run, name);
  while (found.ids < accepted && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    found = await rows.of(run, name);
  }
  assert.equal(found, { rows: accepted, ids: accepted }, `${run} ${name}`);
}

async function passes(name: ProxyName, program: string, stack: TestStack, rows: StoredRows): Promise<void> {
  await withProxy(
    name,
    Number(new URL(stack.gateway).port),
    async ({ http1, http2 }) => {
      for (const [client, cases] of Object.entries(plan)) {
        if (client === 'curl' && find('curl') === undefined) continue;
        const run = `${name}-${client}`;
        const outcomes = await outcomesOf(client, taskOf(stack, run, client === 'curl' ? http1 : http2, cases));
        assert.equal(
          outcomes.map((one) => [one.case, faultOf(one)]),
          cases.map((one) => [one, undefined]),
          `${run}: ${JSON.stringify(outcomes)}`,
        );
        for (const outcome of outcomes) await stored(rows, run, outcome);
      }
    },
    program,
  );
}

/** Between Envoy and the gateway an answer is lost: Envoy sends the same bytes again, and the client says `attempt` 1. */
async function repeats(program: string, stack: TestStack, rows: StoredRows): Promise<void> {
  const lossy = await startSwallowingProxy(Number(new URL(stack.gateway).port));
  try {
    await withProxy(
      'envoy',
      lossy.port,
      async ({ http2 }) => {
        const [outcome] = await outcomesOf('grpc-js', taskOf(stack, 'envoy-repeats', http2, ['retry']));
        assert.is(outcome && faultOf(outcome), undefined, JSON.stringify(outcome));
        assert.is(lossy.swallowed(), 1);
        await stored(rows, 'envoy-repeats', outcome as CaseOutcome);
      },
      program,
    );
  } finally {
    await lossy.close();
  }
}

const programs = proxies.map((proxy) => ({ ...proxy, program: programOf(proxy.name) }));
for (const { name, install, program } of programs) {
  if (program === undefined) process.stderr.write(`skipped: no ${name} on this machine (${install})\n`);
}

test('gRPC, gRPC-Web, Connect and JSON pass nginx, HAProxy and Envoy as docs/proxies.md sets them up', async () => {
  const there = programs.filter(({ program }) => program !== undefined);
  if (there.length === 0) return;
  await withStack(async (stack) => {
    const rows = openStoredRows(stack.clickhouse);
    try {
      for (const { name, program = '' } of there) await passes(name, program, stack, rows);
      const envoy = programOf('envoy');
      if (envoy !== undefined) await repeats(envoy, stack, rows);
    } finally {
      await rows.close();
    }
  });
});

test.run();
