import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { resolveClientOptions } from './options.js';
import { accepted, limits, withPeer } from './testing/peer.js';

const page = await readFile(new URL('../../../docs/client.md', import.meta.url), 'utf8');

test('the sample of docs/client.md runs as it is written', async () => {
  const sample = /```ts\n([\s\S]*?)```/.exec(page)?.[1] ?? '';
  assert.ok(sample.includes('new SluiceClient('));
  const folder = await mkdtemp(join(tmpdir(), 'sluice-sample-'));
  const events: string[] = [];
  try {
    await withPeer(
      async function* (requests, context) {
        assert.is(context.requestHeader.get('authorization'), 'Bearer slk_demo');
        yield limits;
        for await (const request of requests) {
          events.push(...(request.batch?.events.map(({ name }) => name) ?? []));
          yield accepted(request);
        }
      },
      async (peer) => {
        const file = join(folder, 'sample.mts');
        const index = new URL('./index.ts', import.meta.url).href;
        const code = sample.replace("'@sluice/client'", `'${index}'`).replace('http://127.0.0.1:7070', peer.url);
        await writeFile(file, code);
        const root = new URL('../../..', import.meta.url);
        const child = spawn(process.execPath, ['--import', 'tsx', file], { cwd: root });
        let output = '';
        child.stdout.on('data', (chunk: Buffer) => {
          output += chunk.toString();
        });
        child.stderr.on('data', (chunk: Buffer) => {
          output += chunk.toString();
        });
        const killer = setTimeout(() => child.kill('SIGKILL'), 30_000);
        const code0 = await new Promise((resolve) => child.once('exit', resolve));
        clearTimeout(killer);
        assert.is(output, 'delivered 10001, rejected 0, undelivered 0\n');
        assert.is(code0, 0);
      },
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  assert.is(events.length, 10_001);
  assert.is(events.filter((name) => name === 'order_completed').length, 1);
});

test('the figures that docs/client.md tells are the defaults', () => {
  const defaults = resolveClientOptions({ baseUrl: 'http://127.0.0.1:7070', key: 'k' });
  const told: readonly (readonly [string, number, number])[] = [
    ['256 KiB', defaults.batchBytes, 256 * 1024],
    ['2,000 events', defaults.batchEvents, 2_000],
    ['50 ms after', defaults.lingerMs, 50],
    ['(100 ms to 5 s)', defaults.retryBaseMs, 100],
    ['(100 ms to 5 s)', defaults.retryCapMs, 5_000],
    ['a batch for 60 s', defaults.ackTimeoutMs, 60_000],
    ['again for 3 s', defaults.refusalGraceMs, 3_000],
    ['(32 MiB of', defaults.maxBufferBytes, 32 * 1024 * 1024],
    ['by 4 MiB and 32 batches', defaults.maxBytesInFlight, 4 * 1024 * 1024],
    ['by 4 MiB and 32 batches', defaults.maxBatchesInFlight, 32],
  ];
  for (const [words, value, wanted] of told) {
    assert.ok(page.includes(words), words);
    assert.is(value, wanted, words);
  }
});

test.run();
