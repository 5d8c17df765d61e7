import { execFileSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { jemallocPath } from './allocator.js';
import { environmentOf } from './index.js';

const found = process.platform === 'linux' ? jemallocPath() : undefined;
if (found === undefined) console.log('skipped: jemalloc is not installed (Debian: apt-get install libjemalloc2)');

(found === undefined ? test.skip : test)('a gateway runs on jemalloc where it is installed', () => {
  const script = 'process.stdout.write(require("node:fs").readFileSync("/proc/self/maps", "utf8"))';
  const maps = (env: NodeJS.ProcessEnv): string =>
    execFileSync(process.execPath, ['-e', script], { encoding: 'utf8', env });
  assert.match(maps(environmentOf('gateway')), /libjemalloc\.so/);
  assert.not.match(maps({ ...environmentOf('gateway'), LD_PRELOAD: '' }), /libjemalloc/);
});

test.run();
