import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { type TestStack, withStack } from './testing/stack.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const weblog = fileURLToPath(new URL('../../../shared/data/weblog.log.gz', import.meta.url));

interface Ran {
  readonly code: number | null;
  readonly output: string;
}

/** Runs the demo as its users do; `onOutput` sees all that was printed so far. */
function demo(args: readonly string[], onOutput?: (output: string) => void): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...programFlags, programPath('cli/demo/main.ts'), ...args], { cwd: root });
    let output = '';
    const take = (chunk: Buffer): void => {
      output += chunk.toString();
      onOutput?.(output);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.once('error', reject);
    const timer = setTimeout(() => child.kill('SIGKILL'), 120_000);
    child.once('exit', (code) => {
      clearTimeout(timer);
      resolve({ code, output });
    });
  });
}

const target = (stack: TestStack): string[] => [
  '--url',
  stack.gateway,
  '--key',
  stack.key,
  '--clickhouse-url',
  stack.clickhouse,
];

test('what was sent is what is stored, run after run, through kill -9 of worker and ClickHouse and a drained gateway', async () => {
  await withStack(async (stack) => {
    const first = await demo([...target(stack), '--events', '3000']);
    assert.is(first.code, 0, first.output);
    assert.match(first.output, /OK: sent = stored = distinct = 3,000 events, total value [\d,]+\.\d{6} on both sides/);
    assert.match(first.output, /paid_social +[\d,]+ +[\d,]+ +[\d,]+/);

    const crashes: Promise<void>[] = [];
    const second = await demo([...target(stack), '--events', '60000', '--seed', '2'], (output) => {
      if (crashes.length > 0 || !output.includes('Streaming')) return;
      crashes.push(stack.crash('clickhouse'), stack.crash('worker'), stack.replace('gateway'));
    });
    await Promise.all(crashes);
    assert.is(crashes.length, 3);
    assert.is(second.code, 0, second.output);
    assert.match(second.output, /OK: sent = stored = distinct = 60,000 events/);

    if (existsSync(weblog)) {
      const third = await demo([...target(stack), '--weblog', weblog]);
      assert.is(third.code, 0, third.output);
      assert.match(third.output, /page +10,000 +10,000/);
    } else console.log(`skipped: ${weblog} is not here`);

    const refused = await demo([
      '--url',
      stack.gateway,
      '--key',
      'slk_wrong',
      '--clickhouse-url',
      stack.clickhouse,
      '--events',
      '5',
    ]);
    assert.is(refused.code, 1, refused.output);
    assert.match(refused.output, /Refused 5: unauthenticated/);
  });
});

test('tells in one line what is wrong with its flags or its file', async () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['--journeys', '/nowhere.csv'], /^\/nowhere\.csv does not exist\. Give the path of a file/],
    [['--journeys', 'package.json'], /^package\.json is no journey CSV|^package\.json cannot be read as CSV/],
    [['--weblog', 'package.json'], /^package\.json holds no line in Combined Log Format/],
    [['--weblog', 'a', '--journeys', 'b'], /^Give --journeys or --weblog, not both/],
    [['--url', 'http://127.0.0.1:9'], /^Give --url, --key and --clickhouse-url together/],
    [['--events', 'many'], /whole number/],
  ];
  const runs = await Promise.all(cases.map(([args]) => demo(args)));
  for (const [i, [args, message]] of cases.entries()) {
    const ran = runs[i] as Ran;
    assert.is(ran.code, 1, `${args.join(' ')}: ${ran.output}`);
    assert.match(ran.output, message);
    assert.is(ran.output.trim().split('\n').length, 1, ran.output);
  }
});

test.run();
