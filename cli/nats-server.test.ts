import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from '../lib/errors.js';
import { programFlags, programPath } from '../lib/testing/program.js';
import { findNatsServer, natsServerVersion } from './nats-server.js';
import { command } from './testing/running-stack.js';

function withFolder(use: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-nats-server-'));
  return Promise.resolve(use(folder)).finally(() => rmSync(folder, { recursive: true }));
}

function program(folder: string, version: string): string {
  const file = join(folder, 'nats-server');
  writeFileSync(file, `#!/bin/sh\necho "nats-server: ${version}"\n`);
  chmodSync(file, 0o755);
  return file;
}

test('the first folder that has the program wins; none is undefined', async () => {
  await withFolder((folder) => {
    assert.is(findNatsServer([folder]), undefined);
    const file = program(folder, 'v2.9.10');
    assert.is(findNatsServer(['/nowhere', folder, '/usr/sbin']), file);
    assert.is(natsServerVersion(file), '2.9.10');
  });
});

test('a server that is too old, or is none, is refused with the fix', async () => {
  await withFolder((folder) => {
    for (const [version, message] of [
      ['v2.8.4', /is version v?2\.8\.4, which is too old\. .*Install nats-server 2\.9/],
      ['who knows', /does not show its version\. .*Install nats-server 2\.9/],
    ] as const) {
      const file = program(folder, version);
      assert.throws(
        () => natsServerVersion(file),
        (error: unknown) => error instanceof UsageError && message.test(error.message),
      );
    }
  });
});

test('where neither nats-server nor apt-get is, one line says how to install it', async () => {
  await withFolder(async (folder) => {
    // Only the PATH decides whether apt-get is found; the folders are given.
    const script = `
      import { ensureNatsServer } from ${JSON.stringify(programPath('cli/nats-server.ts'))};
      try { ensureNatsServer(() => {}, [${JSON.stringify(folder)}]); } catch (error) { console.log(error.name + ': ' + error.message); }
    `;
    const { out, err } = await command(process.execPath, [...programFlags, '--input-type=module', '-e', script], {
      PATH: folder,
    }).ended;
    assert.match(out, /^\w*Error: nats-server is not on the PATH.*apt-get install nats-server.*\n$/, err);
  });
});

test.run();
