import type { JetStreamManager, StreamInfo } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { streamInfo } from './stream-info.js';

/** Answers as nats-server 2.14.9 gives them; only `cluster` matters. */
async function asked(cluster: unknown): Promise<StreamInfo> {
  const streams = { info: async () => ({ cluster }) as StreamInfo } as unknown as JetStreamManager['streams'];
  return await streamInfo({ streams }, 'EV_0');
}

const others = (...names: string[]): object[] => names.map((name) => ({ name, current: true, active: 0 }));

test('a leader is believed, and a server alone', async () => {
  await asked(undefined);
  await asked({ name: 'c', leader: 'n1' });
  await asked({ name: 'c', leader: 'n1', raft_group: 'S-R3F', replicas: others('n2', 'n3') });
});

test('a server that is not the leader is not believed', async () => {
  for (const cluster of [
    { name: 'c', raft_group: 'S-R3F', replicas: others('n1', 'n2', 'n3') },
    { name: 'c', leader: '', raft_group: 'S-R3F', replicas: others('n1', 'n2', 'n3') },
    { name: 'c', leader: 'n2', raft_group: 'S-R3F', replicas: others('n2', 'n3') },
  ]) {
    try {
      await asked(cluster);
      assert.unreachable(JSON.stringify(cluster));
    } catch (error) {
      assert.match((error as Error).message, /EV_0 has no leader/);
    }
  }
});

test.run();
