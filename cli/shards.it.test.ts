/**
 * `sluice shards` on a whole stack under load: the number changes twice, everything that was acknowledged is stored once, and
 * what is sent again after a change is found on whichever shard it was stored.
 */
import { readFileSync } from 'node:fs';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../lib/testing/until.js';
import {
  BatchState,
  type CloseReport,
  EventType,
  IngestService,
  SluiceClient,
} from '../sdk-gen/typescript/src/index.js';
import { keyFileOf } from './stack-file.js';
import { freePorts, sluice, startUp, withFolder } from './testing/running-stack.js';

const retried = 12;

test('the number of shards goes from 2 to 3 and back under load: nothing is lost, nothing is stored twice', async () => {
  await withFolder(async (data) => {
    const up = await startUp(data, await freePorts(), ['--workers', '2'], { SLUICE_LOG_POSITIONS: 'true' });
    const { gateway: url } = up.stack();
    const key = readFileSync(keyFileOf(data), 'utf8').trim();
    const client = new SluiceClient({ baseUrl: url, key, batchEvents: 50 });
    const ingest = createClient(IngestService, createConnectTransport({ baseUrl: url, httpVersion: '2' }));
    const headers = { authorization: `Bearer ${key}` };
    const occurredAt = { seconds: BigInt(Math.floor(Date.now() / 1000)), nanos: 0 };

    let tracked = 0;
    let report: CloseReport;
    const load = setInterval(() => {
      for (let i = 0; i < 40; i++) client.track({ type: EventType.CLICK, eventId: `e-${tracked++}`, userId: `u-${i}` });
    }, 20);
    /** The shard that holds the batch. A gateway hears of a change within a second or two: until then it says "later". */
    const shardOf = async (id: string, attempt: number): Promise<number> => {
      const batch = { events: [{ eventId: id, type: EventType.INSTALL, occurredAt }] };
      for (const end = Date.now() + 30_000; ; attempt++) {
        try {
          const { result } = await ingest.publish({ batch, batchId: id, attempt }, { headers });
          return result?.position?.shard ?? -1;
        } catch (error) {
          if (!(error instanceof ConnectError) || error.code !== Code.Unavailable || Date.now() > end) throw error;
          await new Promise((resolve) => setTimeout(resolve, 200));
        }
      }
    };
    const shardsOf = (attempt: number): Promise<number[]> =>
      Promise.all(Array.from({ length: retried }, (_, i) => shardOf(`again-${i}`, attempt)));

    try {
      const first = await shardsOf(1);
      const grown = await sluice(['shards', '--data', data, '--set', '3', '--json']);
      assert.is(grown.code, 0, grown.err);
      assert.match(grown.err, /There are 3 shards\./);
      const { shards, epoch, states } = JSON.parse(grown.out) as {
        shards: number;
        epoch: number;
        states: { stopped?: string; generation: string }[];
      };
      assert.equal([shards, epoch, states.length], [3, 2, 3]);
      assert.ok(states.every(({ stopped, generation }) => stopped === undefined && generation !== ''));
      const second = await shardsOf(1_000);
      assert.ok(
        first.some((shard, i) => shard !== second[i]),
        `${second} are the shards of ${first}`,
      );
      const shrunk = await sluice(['shards', '--data', data, '--set', '2']);
      assert.is(shrunk.code, 0, shrunk.err);
      assert.match(shrunk.out, /^shard +stream .*\n0 +EV_0 .*\n1 +EV_1 .*\n$/);
      assert.equal(await shardsOf(2_000), first);
    } finally {
      clearInterval(load);
      // Also after a failure: a client that still sends keeps this process alive.
      report = await client.close();
    }
    assert.equal([report.delivered, report.undelivered.events], [tracked, 0]);
    await until(
      'all is loaded',
      async () => {
        const { out } = await sluice(['query', '--data', data, '--format', 'TSV', 'SELECT count() FROM events']);
        return Number(out) >= tracked + retried;
      },
      30_000,
    );
    const status = await ingest.getBatchStatus({ batchId: 'again-0' }, { headers });
    assert.equal([status.state, status.stored], [BatchState.STORED, 1n]);
    const audit = await sluice(['audit', '--data', data, '--json']);
    assert.is(audit.code, 0, audit.out);
    const { out } = await sluice([
      ...['query', '--data', data, '--format', 'TSV'],
      "SELECT count(), uniqExact(event_id) FROM events WHERE tenant != ''",
    ]);
    assert.equal(out.trim().split('\t').map(Number), [tracked + retried, tracked + retried]);
    up.child.kill('SIGTERM');
    assert.is((await up.ended).code, 0);
  });
});

test.run();
