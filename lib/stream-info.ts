/**
 * Asks JetStream about a stream in a way that can be trusted (FACT-23).
 *
 * While a replicated stream has no leader, each of its servers answers for itself. So does the preferred leader for 10 s after its
 * start (nats-server 2.14.9, jsStreamInfoRequest). Such a server may just have come back and lack the end of the stream. To the loader
 * that would look like a stream that went backwards (LOAD-8), to an erasure like an empty one. A leader answers only when it has
 * everything that was ever acknowledged.
 */
import type { JetStreamManager, StreamInfo } from '@nats-io/jetstream';

/** @throws Error while the stream has no leader, or cannot be reached; `isStreamMissing` when there is no such stream */
export async function streamInfo(jsm: Pick<JetStreamManager, 'streams'>, stream: string): Promise<StreamInfo> {
  const info = await jsm.streams.info(stream);
  if (!isLeadersWord(info)) throw new Error(`the stream ${stream} has no leader at the moment`);
  return info;
}

/** A server lists the others: one that lists the leader is not the leader. */
function isLeadersWord({ cluster }: StreamInfo): boolean {
  if (cluster?.leader === undefined) return cluster?.replicas === undefined;
  return cluster.leader !== '' && cluster.replicas?.some(({ name }) => name === cluster.leader) !== true;
}
