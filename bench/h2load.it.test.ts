/** Unary calls by h2load against a real gateway. Skips when h2load is not installed. */
import { spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MiB } from '../lib/units.js';
import { startH2load } from './h2load.js';
import { withStack } from './stack.js';

const installed = spawnSync('h2load', ['--version']).status === 0;
if (!installed) console.log('h2load is not installed: skipped');
const tests = installed ? test : test.skip;

tests('calls over Connect and gRPC are counted, timed and in the log; a wrong key is an error', async () => {
  const servers = { gateways: 1, workers: 0, shards: 2, flags: {}, telemetry: false, profile: undefined };
  await withStack(servers, async ({ gatewayUrl: url, key: good, logMib }) => {
    const loggedBytes = async (): Promise<number> => ((await logMib()) ?? 0) * MiB;
    const run = async (protocol: 'connect' | 'grpc', key: string, rate: number | 'max') => {
      const load = startH2load({ url, key, protocol, connections: 3, clients: 12, batch: 5, seed: 1, loggedBytes });
      try {
        load.begin(rate);
        assert.is(load.pids.length, 3);
        await sleep(500);
        load.mark();
        await sleep(1_000);
        return await load.stop(0);
      } finally {
        await load.close();
      }
    };
    for (const protocol of ['connect', 'grpc'] as const) {
      const { counts, total, ack } = await run(protocol, good, 'max');
      assert.is(counts.acked, counts.batches * 5);
      assert.ok(counts.batches > 50 && total.batches > counts.batches, `${counts.batches} of ${total.batches}`);
      assert.ok(ack.totalCount > 50 && ack.minNonZeroValue > 0);
    }
    const { counts, seconds } = await run('connect', good, 300);
    assert.ok(Math.abs(counts.acked / seconds - 300) < 100, `${counts.acked} events in ${seconds} s at a rate of 300`);
    await run('connect', 'wrong', 'max').then(
      () => assert.unreachable(),
      (error: Error) => assert.match(error.message, /HTTP status 401/),
    );
  });
});

test.run();
