/**
 * The quick part of `npm run hostile`: many attacks at once at a small scale, judged by bounds that do not depend on the machine's speed.
 * And controls: with a limit switched off, the same judgement finds fault.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { attackNamed } from './attacks/index.js';
import { anywhere } from './bounds.js';
import { page } from './report.js';
import { type Row, type RunOptions, run } from './run.js';

const quick: Omit<RunOptions, 'attacks'> = {
  judged: anywhere,
  flags: [],
  processes: 1,
  tls: false,
  seconds: 3,
  atLeast: { answered: 101 },
  scale: 0.02,
  calm: { warmUp: 0.5, alone: 0.5, after: 0.5 },
  say: () => {},
};

const play = async (names: readonly string[], options: Partial<RunOptions> = {}): Promise<Row> => {
  const [row] = await run({ ...quick, ...options, attacks: [attackNamed(names.join(' + '))] });
  assert.ok(row);
  return row;
};

const withoutKey = [
  'window-zero-strangers',
  'refused-bodies-window-zero',
  'key-guessing',
  'rapid-reset',
  'idle-connections',
  'silent-connections',
  'slow-heads',
  'slow-http2-heads',
  'half-prefaces',
  'connection-churn',
  'unknown-frames',
  'ping-flood',
  'settings-flood',
  'continuation-flood',
  'huge-header-lists',
  'pipelined-unread',
  'health-watches',
  'reflection-calls',
  'readyz-flood',
  'endless-heads',
  'upgrades',
];
const withKey = [
  'window-zero-customers',
  'empty-calls-behind-seats',
  'unfinished-stream-messages',
  'unfinished-unary-bodies',
  'unfinished-http1-bodies',
  'slow-http1-bodies',
  'slow-http2-bodies',
  'tiny-chunks',
  'unread-stream-answers',
  'unread-unary-answers',
  'many-streams',
  'empty-messages',
  'ten-thousand-rejections',
  'json-packed-events',
  'json-many-keys',
  'protobuf-empty-fields',
  'gzip-http1',
  'gzip-connect',
  'gzip-grpc',
  'gzip-grpc-web',
  'gzip-get',
  'bodies-cut-off',
  'expect-continue',
  'pipelined-posts',
  'chunk-extensions',
];

for (const [who, names] of Object.entries({ strangers: withoutKey, 'a customer': withKey })) {
  test(`the gateway stands many attacks of ${who} at once, and a good client beside them loses no call`, async () => {
    const row = await play(names);
    assert.equal(row.broken, [], page([row]));
    assert.ok(row.figures.counts.answered > 100, page([row]));
  });
}

test('control: with room for 1 GiB of one customer, unfinished messages fill the memory, and the verdict says so', async () => {
  const row = await play(['unfinished-stream-messages'], {
    scale: 0.3,
    atLeast: { bytesOut: 280 * 1024 ** 2 },
    flags: ['--max-unfinished-bytes', '1GiB', '--max-tenant-unfinished-bytes', '1GiB'],
  });
  assert.ok(
    row.broken.some((one) => one.includes('MiB of memory')),
    page([row]),
  );
});

test.run();
