/** The log without room: a disk that is full, and streams that JetStream has no room for. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { SluiceError } from '../../lib/errors.js';
import { silentLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { withNats } from '../../lib/testing/nats.js';
import { withSmallDisk } from '../../lib/testing/small-disk.js';
import { until } from '../../lib/testing/until.js';
import { MiB } from '../../lib/units.js';
import { createIngest, type IngestResult } from '../ingest/ingest.js';
import { createGatewayMetrics } from '../metrics.js';
import { assertAllStored, ingestConfig, ingestInput, largeBatch, withIngest } from '../testing/ingest.js';

test('a log whose disk is full acknowledges nothing that it does not have, and goes on when there is room', async () => {
  await withSmallDisk(32, (disk) =>
    withNats(
      (nats) =>
        // nats-server 2.9.10 answers no request once a write has failed; newer ones refuse.
        withIngest(nats, { shards: 1, publishTimeout: 500 }, async ({ ingest }) => {
          const acked: IngestResult[] = [];
          const failed: SluiceError[] = [];
          let n = 0;
          const publish = async (): Promise<void> => {
            try {
              acked.push(await ingest.publish(ingestInput(`b-${n++}`, largeBatch)));
            } catch (error) {
              if (!(error instanceof SluiceError)) throw error;
              failed.push(error);
              await new Promise((resolve) => setTimeout(resolve, 20));
            }
          };
          for (let i = 0; i < 10; i++) await publish();
          assert.is(acked.length, 10);
          disk.fill();
          for (let i = 0; i < 8; i++) await publish();
          assert.ok(failed.length >= 5, `${failed.length} of 8 were refused`);
          for (const error of failed) {
            assert.ok(['outcome_unknown', 'log_unavailable', 'log_full'].includes(error.code), error.code);
            assert.is(error.outcomeUnknown, error.code === 'outcome_unknown');
            assert.ok((error.retryAfterMs ?? 0) > 0);
          }
          await disk.empty();
          // What an operator does with a server that hangs.
          nats.process().kill('SIGKILL');
          await nats.restart();
          const before = acked.length;
          await until('acks again', async () => {
            await publish();
            return acked.length > before + 5;
          });
          await assertAllStored(nats, acked);
        }),
      { parent: disk.folder, jetstream: 'max_file_store: 1GB' },
    ),
  );
});

test('streams that JetStream has no room for are named, with what to do', () =>
  withNats(
    async (nats) => {
      const connecting = connectNats({ servers: nats.url, name: 'test', logger: silentLogger });
      const ingest = createIngest({
        nats: connecting,
        config: { ...ingestConfig, shardMaxBytes: 64 * MiB },
        metrics: createGatewayMetrics(),
        logger: silentLogger,
      });
      await until('a reason', () => ingest.reason?.includes('EV_0') === true);
      assert.match(ingest.reason ?? '', /EV_0 of 64 MiB does not fit .* max_file_store .* --shard-max-bytes/);
      await ingest.drain(100);
      await (await connecting).close();
    },
    { jetstream: 'max_file_store: 8MB' },
  ));

test.run();
