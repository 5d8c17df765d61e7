/**
 * Sends batches straight into JetStream, as the gateway would: what a Node process without a gateway can reach. The
 * ceiling that the gateway's figures are to be read against.
 */
import { jetstream } from '@nats-io/jetstream';
import { shardOf } from '../lib/contract/shard.js';
import { silentLogger } from '../lib/logger.js';
import { connectNats } from '../lib/nats.js';
import type { BatchSlot, Sender, SenderEvents } from './sender.js';

export interface LogTarget {
  readonly natsUrl: string;
  readonly shards: number;
  readonly tenant: string;
  /** First token of the subjects: `ev` fills the gateway's streams, any other one streams of the benchmark's own. */
  readonly subjectRoot: string;
}

export async function sendToLog(target: LogTarget, events: SenderEvents): Promise<Sender> {
  const nc = await connectNats({ servers: target.natsUrl, name: 'bench', logger: silentLogger, timeoutMs: 5_000 });
  const js = jetstream(nc, { timeout: 10_000 });
  const subjects = Array.from({ length: target.shards }, (_, i) => `${target.subjectRoot}.${i}.${target.tenant}`);
  return {
    ready: () => !nc.isClosed(),
    send(slot: BatchSlot): boolean {
      const { index, number, message } = slot;
      const id = message.bytes.toString('latin1', message.batchIdOffset, message.batchIdOffset + 24);
      const subject = subjects[shardOf(target.tenant, id, target.shards)] as string;
      js.publish(subject, message.bytes).then(
        () => events.outcome(index, number, { kind: 'accepted', accepted: message.events, rejected: 0 }),
        (error: unknown) =>
          events.outcome(index, number, {
            kind: 'retry',
            afterMs: 100,
            reason: error instanceof Error ? error.message : String(error),
          }),
      );
      return true;
    },
    async close() {
      await nc.close();
    },
  };
}
