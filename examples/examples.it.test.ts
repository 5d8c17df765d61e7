/** Each line of examples/README.md, as it is pasted, against a stack. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Answer, command, freePorts, sluice, startUp, withFolder } from '../cli/testing/running-stack.js';
import { root } from '../lib/testing/root.js';
import { until } from '../lib/testing/until.js';

/** The lines of the blocks of `sh`, without comments. */
const lines = [...readFileSync(join(root, 'examples/README.md'), 'utf8').matchAll(/```sh\n([\s\S]*?)```/g)]
  .flatMap(([, block]) => (block ?? '').trim().split('\n'))
  .map((line) => line.replace(/ {2,}#.*$/, ''));

const has = (program: string): Promise<boolean> =>
  command('sh', ['-c', `command -v ${program}`]).ended.then(({ code }) => code === 0);

test('every example sends its events, and they are stored once', async () => {
  await withFolder(async (data) => {
    const up = await startUp(data, await freePorts());
    const environment = { GATEWAY: up.stack().gateway, KEY: readFileSync(join(data, 'demo-key'), 'utf8').trim() };
    const senders = lines.filter((line) => line.includes('examples/'));
    assert.is(senders.length, 3);
    const stored: string[] = [];
    for (const line of senders) {
      const name = /examples\/(\w+)/.exec(line)?.[1] ?? '';
      if (name === 'grpcurl' && !(await has('grpcurl'))) {
        console.log('skipped: grpcurl is not installed');
        continue;
      }
      const { code, out, err } = await command('sh', ['-c', line], environment).ended;
      assert.is(code, 0, `${line}: ${out}${err}`);
      stored.push(...Array.from({ length: name === 'grpcurl' ? 1 : 3 }, (_, n) => `example-${name}-${n + 1}`));
    }
    const select = `SELECT event_id FROM events WHERE event_id LIKE 'example-%' ORDER BY event_id`;
    const query = (): Promise<Answer> => sluice(['query', '--data', data, '--format', 'TSV', select]);
    const wanted = stored.sort().map((id) => `${id}\n`);
    await until('the events are stored', async () => (await query()).out.split('\n').length > wanted.length);
    assert.is((await query()).out, wanted.join(''));

    const reader = lines.find((line) => line.startsWith('npx sluice query')) ?? '';
    const read = await command('sh', ['-c', `${reader} --data '${data}'`]).ended;
    assert.is(read.code, 0, read.err);
    assert.match(read.out, /example-curl-1/);
    up.child.kill('SIGINT');
    assert.is((await up.ended).code, 0);
  });
});

test.run();
