/**
 * What JetStream says of a stream, when it is to be relied on.
 *
 * While a replicated stream has no leader, each of its servers answers for itself, and so does for 10 s after its start the one
 * that the cluster would like to lead (nats-server 2.14.9, jsStreamInfoRequest): also one that has just come back and lacks
 * the end of the stream. To the loader that would look like a stream that went backwards (LOAD-8), to an erasure like one that
 * holds nothing more. A leader answers only when it has everything that was ever acknowledged.
 */
import { JetStreamApiError, type JetStreamManager, type StreamInfo } from '@nats-io/jetstream';

/** @throws Error while the stream has no leader, or cannot be reached; JetStreamApiError 10059 when there is no such stream */
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

/** JetStream says that there is no such stream. */
export const isStreamMissing = (error: unknown): boolean => error instanceof JetStreamApiError && error.code === 10059;
