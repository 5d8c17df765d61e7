/**
 * The log as a peer in Node uses it: nats.js as its documentation shows, one message a batch, done when JetStream says so.
 */
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { silentLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';

export interface PeerLog {
  readonly stream: string;
  /** Resolves with the sequence once JetStream has the message. */
  append(payload: Uint8Array): Promise<number>;
}

export interface PeerLogOptions {
  readonly natsUrl: string;
  readonly stream: string;
  readonly tenant: string;
}

export async function connectPeerLog(options: PeerLogOptions): Promise<PeerLog> {
  const { natsUrl, stream, tenant } = options;
  const nc = await connectNats({ servers: natsUrl, name: 'bench-peer', logger: silentLogger, timeoutMs: 5_000 });
  const js = jetstream(nc, { timeout: 10_000 });
  const subject = `${stream}.${tenant}`;
  return { stream, append: async (payload) => (await js.publish(subject, payload)).seq };
}

/** A stream like a shard of ours: one file replica, full means "slow down", no window for duplicates to speak of. */
export async function createPeerStream(nc: NatsConnection, stream: string, maxBytes: number): Promise<void> {
  const jsm = await jetstreamManager(nc);
  await jsm.streams.add({
    name: stream,
    subjects: [`${stream}.*`],
    retention: 'limits',
    discard: 'new',
    storage: 'file',
    max_bytes: maxBytes,
    num_replicas: 1,
    duplicate_window: 100_000_000,
    allow_direct: true,
  });
}
