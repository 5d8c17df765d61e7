/**
 * The clients that Node, npm and curl bring, on every machine; `npm run interop` runs those of other languages too.
 * Among them is @grpc/grpc-js with its own retryPolicy behind a proxy that loses an answer.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { CaseName } from './cases.js';
import { foreignClients } from './clients/index.js';
import { isClean, page } from './report.js';
import { run } from './run.js';
import { defaultCache } from './workshop.js';

const names = ['curl', 'buf-curl', 'grpc-js', 'page-curl', 'page-grpcurl'];
const cases: readonly CaseName[] = [
  'unary',
  'stream',
  'wrong-key',
  'bad-event',
  'too-large',
  'gzip',
  'flood',
  'retry',
  'snippet',
];

test('what foreign clients heard to be accepted is stored once, also when their library sends a call again', async () => {
  const lines: string[] = [];
  const clients = foreignClients.filter(({ name }) => names.includes(name));
  const result = await run({ clients, cases, cache: defaultCache, say: (line) => lines.push(line) });
  for (const { client, skipped } of result.clients) {
    if (skipped !== undefined) process.stderr.write(`skipped ${client.name}: ${skipped}\n`);
  }
  assert.ok(isClean(result), `${page(result)}\n\n${lines.join('\n')}`);
  assert.ok(result.clients.filter(({ skipped }) => skipped === undefined).length >= 2);
});

test.run();
