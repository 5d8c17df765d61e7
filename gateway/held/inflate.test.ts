import { randomBytes } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { SluiceError } from '../../lib/errors.js';
import { createInflater, freeOutput, greatestRatio, type Inflater, newMeter } from './inflate.js';

const max = 4 * 1024 ** 2;
const zeros = (size: number): Uint8Array => gzipSync(Buffer.alloc(size));
const inflate = (inflater: Inflater, bytes: Uint8Array, more: object = {}) =>
  inflater.inflate({ owner: 'acme', bytes, max, meter: newMeter(), ...more }, (output) => output);
const nameOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'inflated',
    (reason: unknown) => (reason instanceof SluiceError ? reason.code : String(reason)),
  );

test('what is small or does not unfold far comes out as it went in, in one member or in many', async () => {
  const inflater = createInflater();
  const noise = randomBytes(3_000_000);
  for (const plain of [Buffer.alloc(0), Buffer.from('{}'), Buffer.alloc(freeOutput), noise]) {
    assert.ok(plain.equals(await inflate(inflater, gzipSync(plain))), `${plain.length} bytes`);
  }
  const members = Buffer.concat(Array.from({ length: 1_000 }, () => gzipSync('ab')));
  assert.is(Buffer.from(await inflate(inflater, members)).toString(), 'ab'.repeat(1_000));
});

test('INFLATE-1: a bomb is refused, and no more of it is inflated than it may be, plus a chunk', async () => {
  const bomb = zeros(100_000_000);
  const nested = Buffer.concat(Array.from({ length: 100 }, () => zeros(1_000_000)));
  for (const bytes of [bomb, nested]) {
    const inflater = createInflater();
    const max = 50_000_000;
    const allowed = Math.min(max, freeOutput + greatestRatio * bytes.length);
    assert.is(await nameOf(inflate(inflater, bytes, { max })), 'inflates_too_far');
    assert.ok(inflater.bytes <= allowed + 64 * 1024, `${inflater.bytes} bytes of ${bytes.length}`);
  }
});

test('INFLATE-1: the messages of one call share what is free', async () => {
  const inflater = createInflater();
  const meter = newMeter();
  const names: string[] = [];
  for (let i = 0; i < 1_000; i++) names.push(await nameOf(inflate(inflater, zeros(200_000), { meter })));
  assert.is(names[0], 'inflated');
  assert.is(names[1], 'inflates_too_far');
  const inflated = names.filter((name) => name === 'inflated').length;
  assert.ok(inflated < 60, `${inflated} of 1,000`);
  assert.ok(inflater.bytes <= freeOutput + greatestRatio * meter.input, `${inflater.bytes} of ${meter.input}`);
  // Honest messages go on forever.
  const honest = newMeter();
  const message = gzipSync(randomBytes(50_000).toString('hex'));
  for (let i = 0; i < 50; i++) assert.is(await nameOf(inflate(inflater, message, { meter: honest })), 'inflated');
});

test('what is too large, cut short or no gzip is refused by its name', async () => {
  const inflater = createInflater();
  assert.is(await nameOf(inflate(inflater, gzipSync(randomBytes(2_000)), { max: 1_000 })), 'batch_too_large');
  assert.is(await nameOf(inflate(inflater, gzipSync(randomBytes(2_000)).subarray(0, 1_500))), 'request_malformed');
  assert.is(await nameOf(inflate(inflater, Buffer.from('no gzip'))), 'request_malformed');
});

test('INFLATE-2: one owner leaves room for the others, and they take turns', async () => {
  const inflater = createInflater({ atOnce: 3, ofOwner: 2 });
  const ended: string[] = [];
  const some = gzipSync(randomBytes(100_000));
  const run = (owner: string) => inflate(inflater, some, { owner }).then(() => ended.push(owner));
  const all = Array.from({ length: 40 }, () => run('flood'));
  assert.equal([inflater.inside, inflater.waiting], [2, 38]);
  all.push(run('acme'));
  assert.equal([inflater.inside, inflater.waiting], [3, 38]);
  all.push(run('acme'), run('other'));
  await Promise.all(all);
  assert.ok(ended.lastIndexOf('acme') < 12, ended.join());
  assert.ok(ended.indexOf('other') < 12, ended.join());
  assert.equal([inflater.inside, inflater.waiting], [0, 0]);
});

test('INFLATE-2: a request keeps its place until its output is read', async () => {
  const inflater = createInflater({ atOnce: 1, ofOwner: 1 });
  let read = (): void => {};
  const first = inflater.inflate(
    { owner: 'acme', bytes: gzipSync('1'), max, meter: newMeter() },
    () =>
      new Promise<string>((resolve) => {
        read = () => resolve('read');
      }),
  );
  const second = inflate(inflater, gzipSync('2'), { owner: 'other' });
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal([inflater.inside, inflater.waiting, inflater.bytes], [1, 1, 0]);
  read();
  assert.is(await first, 'read');
  assert.is(Buffer.from(await second).toString(), '2');
});

test('INFLATE-3: who has gone away while waiting is not inflated', async () => {
  const inflater = createInflater({ atOnce: 1, ofOwner: 1 });
  const some = gzipSync(randomBytes(100_000));
  const gone = new AbortController();
  const first = inflate(inflater, some);
  const second = nameOf(inflate(inflater, some, { signal: gone.signal }));
  gone.abort();
  await first;
  assert.match(await second, /AbortError/);
  assert.is(inflater.bytes, 100_000);
  assert.is(await nameOf(inflate(inflater, some)), 'inflated');
});

test.run();
