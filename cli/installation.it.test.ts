/**
 * The stack and the commands as `npm run build` makes them, on each version of Node, without tsx. `npm run test:versions -- cli/up` does the same
 * for a checkout.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { buildSources, linkProductionPackages } from '../lib/testing/installation.js';
import { root } from '../lib/testing/root.js';
import { until } from '../lib/testing/until.js';
import { programOf, supportedVersions } from './node-versions.js';
import {
  type Answer,
  freePorts,
  type Installation,
  startSluice,
  startUp,
  withFolder,
} from './testing/running-stack.js';

/** A download of one program of Node, about 50 MB, may take that long. */
const downloadWithinMs = 60_000;

/** Starts the stack, sends an event, and asks for it with another command. With `events`, the demo streams so many more. */
async function storesAnEvent(installation: Installation, data: string, events = 0): Promise<void> {
  const up = await startUp(data, await freePorts(), [], {}, installation);
  const sent = await fetch(`${up.stack().gateway}/v1/events`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${readFileSync(join(data, 'demo-key'), 'utf8').trim()}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ eventId: 'of-a-version', type: 'EVENT_TYPE_PAGE', occurredAt: new Date().toISOString() }),
  });
  assert.is(sent.status, 202, await sent.text());
  const count = [
    'query',
    '--data',
    data,
    '--format',
    'CSV',
    "SELECT count() FROM events WHERE event_id = 'of-a-version'",
  ];
  const counted = (): Promise<Answer> => startSluice(installation, count).ended;
  await until('the event is stored', async () => (await counted()).out !== '0\n');
  assert.equal(await counted(), { code: 0, out: '1\n', err: '' });
  if (events > 0) {
    const demo = await startSluice(installation, ['demo', '--data', data, '--events', String(events)]).ended;
    assert.is(demo.code, 0, demo.out + demo.err);
    assert.match(demo.out, /OK: sent = stored = distinct/);
  }
  up.child.kill('SIGINT');
  const { code, err } = await up.ended;
  assert.is(code, 0, err);
}

let folder = '';

test.before(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-installation-'));
  buildSources(root, join(folder, 'dist'));
  linkProductionPackages(folder, true);
  assert.not.ok(existsSync(join(folder, 'node_modules/tsx')));
});

test.after(() => rmSync(folder, { recursive: true, force: true }));

for (const major of supportedVersions) {
  const node = programOf(major, downloadWithinMs);
  const name = `what \`npm run build\` makes runs the stack and the commands on Node ${major}, without tsx`;
  if (node === undefined) {
    test.skip(`${name}: npm has no such package for this machine or cannot be reached`);
    continue;
  }
  test(name, () =>
    withFolder((data) => {
      const installation = { node, file: join(folder, 'dist/cli/sluice.js'), folder };
      // The demo takes longer: one version has to do.
      return storesAnEvent(installation, join(data, 'data'), node === process.execPath ? 2_000 : 0);
    }),
  );
}

test.run();
