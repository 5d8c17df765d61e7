/** What the log's code does on a cluster of three nodes whose nodes are killed. Skips without a nats-server that is new enough. */
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { installationReplicas } from './buckets.js';
import { ensureShards, generationOf } from './log-streams.js';
import { silentLogger } from './logger.js';
import { connectNats } from './nats.js';
import { streamInfo } from './stream-info.js';
import { shardStream } from './subjects.js';
import { addTenant, listTenants, revokeKey, watchTenants } from './tenants.js';
import { currentNats } from './testing/current-nats.js';
import { withNatsCluster } from './testing/nats-cluster.js';
import { until } from './testing/until.js';

/** A first build takes a minute on an idle machine. Another run goes on where it stopped. */
const buildWithinMs = 120_000;

const nats = await currentNats(buildWithinMs);
if (nats.program === undefined) process.stdout.write(`skipped: ${nats.reason}\n`);
const inCluster = (name: string, use: (program: string) => Promise<void>): void => {
  const { program } = nats;
  if (program === undefined) test.skip(name);
  else test(name, () => use(program));
};

inCluster('streams and keys outlive any one node, and a member without a leader is not believed', async (program) => {
  await withNatsCluster(3, { program }, async (cluster) => {
    const replicas = 3;
    const nc = await connectNats({ servers: cluster.url, name: 'test', logger: silentLogger });
    const jsm = await jetstreamManager(nc, { checkAPI: false });
    try {
      // A key that was made before any gateway ran: its bucket has one replica until then.
      const first = await addTenant(nc, { tenant: 'first' });
      const shards = 2;
      assert.is(await ensureShards(nc, { shards, replicas, maxBytes: 64 * 1024 ** 2 }), shards);
      assert.is(await installationReplicas(nc), replicas);
      const keys = await watchTenants(nc, silentLogger, replicas);
      const isKnown = ({ key }: { key: string }): boolean => {
        try {
          keys.lookup(`Bearer ${key}`);
          return true;
        } catch {
          return false;
        }
      };
      assert.ok(isKnown(first));
      assert.is((await jsm.streams.info('KV_sluice_tenants')).config.num_replicas, replicas);
      const generation = generationOf(await streamInfo(jsm, shardStream(0)));

      // The stream's leader, then the one that followed it.
      for (let round = 0; round < 2; round++) {
        const node = await cluster.leaderOf(shardStream(0));
        await node.kill();
        let added: Awaited<ReturnType<typeof addTenant>> | undefined;
        await until(`a key is added without ${node.name}`, async () => {
          added = await addTenant(nc, { tenant: `round-${round}` }).catch(() => undefined);
          return added !== undefined;
        });
        await until('it is known', () => added !== undefined && isKnown(added));
        node.start();
        await cluster.healthy();
        await until('the stream has a leader', () =>
          streamInfo(jsm, shardStream(0)).then(
            (info) => generationOf(info) === generation,
            () => false,
          ),
        );
      }
      assert.is(await ensureShards(nc, { shards, replicas, maxBytes: 64 * 1024 ** 2 }), shards);
      await revokeKey(nc, first.keyId);
      await until('the key is ended', () => !isKnown(first));
      // An add whose answer was lost may be there as well.
      assert.ok((await listTenants(nc)).length >= 3);
      await keys.close();

      // A member that was left alone answers for itself, and that identifies it.
      const [alone, ...others] = cluster.nodes;
      await Promise.all(others.map((node) => node.kill()));
      const lonely = await connect({ servers: alone?.url ?? '', maxReconnectAttempts: -1 });
      const asked = await jetstreamManager(lonely, { checkAPI: false });
      const answer = (asking: Promise<unknown>): Promise<string> => asking.then(() => 'told', String);
      // It takes itself for the leader until it has missed the others for a while.
      await until('it answers without a leader, and is not believed', async () => {
        const believed = await answer(streamInfo(asked, shardStream(0)));
        return believed.includes('has no leader') && (await answer(asked.streams.info(shardStream(0)))) === 'told';
      });
      await lonely.close();
    } finally {
      await nc.close();
    }
  });
});

test.run();
