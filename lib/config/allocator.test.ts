import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { allocatorVariables, jemallocPath } from './allocator.js';
import { environmentOf } from './index.js';

const debian = '/usr/lib/x86_64-linux-gnu/libjemalloc.so.2';
const alpine = '/usr/lib/libjemalloc.so.2';

test('jemalloc is found in the folder of the processor first, then where other systems have it', () => {
  const among =
    (...paths: string[]) =>
    (path: string) =>
      paths.includes(path);
  assert.is(jemallocPath('x64', among(debian, alpine)), debian);
  assert.is(jemallocPath('arm64', among(debian, alpine)), alpine);
  assert.is(jemallocPath('riscv64', among('/usr/lib64/libjemalloc.so.2')), '/usr/lib64/libjemalloc.so.2');
  assert.is(
    jemallocPath('x64', () => false),
    undefined,
  );
});

test("without jemalloc, glibc's malloc has two arenas", () => {
  assert.equal(allocatorVariables(undefined), { MALLOC_ARENA_MAX: '2' });
  assert.is(allocatorVariables(debian).LD_PRELOAD, debian);
});

test('the environment of the one who starts a gateway wins', () => {
  const before = process.env.LD_PRELOAD;
  process.env.LD_PRELOAD = '';
  try {
    assert.is(environmentOf('gateway').LD_PRELOAD, '');
  } finally {
    if (before === undefined) delete process.env.LD_PRELOAD;
    else process.env.LD_PRELOAD = before;
  }
  assert.is(environmentOf('worker').MALLOC_CONF, process.env.MALLOC_CONF);
});

test.run();
