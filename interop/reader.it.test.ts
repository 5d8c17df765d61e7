/** The reader of the log in docs/clients.md, as it is written. */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withStack } from '../cli/demo/testing/stack.js';
import { readSnippets } from './snippets.js';
import { root } from './workshop.js';

const readWithinMs = 30_000;
/** Below node_modules, so that the program finds its packages. */
const cache = join(root, 'node_modules', '.cache', 'sluice');

/** @returns what the reader prints, when it has printed `wanted` or its time is over */
async function readUntil(file: string, wanted: string): Promise<string> {
  const child = spawn(process.execPath, ['--import', 'tsx', file], { cwd: root });
  let said = '';
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const killer = setTimeout(() => child.kill('SIGKILL'), readWithinMs);
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes(wanted)) child.kill('SIGKILL');
    });
  await ended;
  clearTimeout(killer);
  return said;
}

test('the reader of docs/clients.md prints the events of a shard', async () => {
  const step = readSnippets()
    .get('Readers of the log')
    ?.find(({ kind }) => kind === 'file');
  assert.ok(step !== undefined);
  await mkdir(cache, { recursive: true });
  const folder = await mkdtemp(join(cache, 'reader-'));
  try {
    await withStack(async ({ gateway, key, nats }) => {
      // One batch a shard, at least: the reader reads shard 0.
      for (let i = 0; i < 20; i++) {
        const event = { eventId: `read-${i}`, type: 'EVENT_TYPE_PAGE', occurredAt: '2026-01-02T03:04:05Z' };
        const answer = await fetch(`${gateway}/v1/events`, {
          method: 'POST',
          headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
          body: JSON.stringify(event),
        });
        assert.is(answer.status, 202);
      }
      const file = join(folder, 'reader.mts');
      // The server here asks for nothing, and takes what it is shown.
      const credentials = join(folder, 'nats-credentials');
      await writeFile(credentials, 'user:password\n');
      const places = {
        '127.0.0.1:4222': nats,
        './sdk-gen': join(root, 'sdk-gen'),
        'sluice-data/nats-credentials': credentials,
      };
      const text = Object.entries(places).reduce((all, [from, to]) => all.replace(from, to), step.text);
      await writeFile(file, text);
      const said = await readUntil(file, 'read-');
      assert.match(said, /^\d+ demo read-\d+$/m);
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test.run();
