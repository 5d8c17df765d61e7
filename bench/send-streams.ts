/**
 * Sends batches over gRPC PublishStream: some connections, some streams on each. Honours what a client must: flow control,
 * `Draining`, GOAWAY, failed batches, lost connections (with back-off).
 */
import { callHeaders, keepLinked, type Link } from './h2-link.js';
import { openPublishStream, type PublishStream, publishStreamPath, type StreamEnd } from './publish-stream.js';
import type { BatchSlot, Sender, SenderEvents } from './sender.js';

export interface StreamTarget {
  /** `http://127.0.0.1:7070` */
  readonly url: string;
  readonly key: string;
  readonly connections: number;
  /** Streams on each connection. */
  readonly streams: number;
}

/** The key is not valid; there is no such method. No retry mends them. */
const hopeless: readonly (string | undefined)[] = ['16', '12'];
const reopenMs = 50;

export function sendOverStreams(target: StreamTarget, events: SenderEvents): Sender {
  const headers = callHeaders(publishStreamPath, target.key, 'grpc');
  const open = new Set<PublishStream>();
  let closed = false;

  const openOn = (link: Link): void => {
    const { session } = link;
    if (closed || session === undefined) return;
    const stream: PublishStream = openPublishStream(session, headers, {
      ...events,
      draining: (leaving) => link.leave(leaving),
      over: ({ reason, status, unanswered }: StreamEnd) => {
        open.delete(stream);
        for (const [slot, number] of unanswered) {
          events.outcome(slot, number, { kind: 'retry', afterMs: reopenMs, reason });
        }
        if (hopeless.includes(status)) events.failed(new Error(`the gateway ended the stream: ${reason}`));
        // A connection that lives gets another stream; one that follows opens its own.
        else if (link.session === session) setTimeout(openOn, reopenMs, link);
      },
    });
    open.add(stream);
    events.writable();
  };
  const links = Array.from({ length: target.connections }, () => {
    const link: Link = keepLinked(target.url, {
      connected: () => {
        for (let i = 0; i < target.streams; i++) openOn(link);
      },
      left: (session) => {
        for (const stream of open) if (stream.session === session) stream.leave();
      },
      failed: events.failed,
    });
    return link;
  });

  /** The stream with room that has the fewest batches in flight. */
  const choose = (): PublishStream | undefined => {
    let best: PublishStream | undefined;
    for (const stream of open) {
      if (stream.phase === 'open' && stream.inFlight < (best?.inFlight ?? Number.POSITIVE_INFINITY)) best = stream;
    }
    return best;
  };
  return {
    ready: () => choose() !== undefined,
    send(slot: BatchSlot): boolean {
      const stream = choose();
      stream?.send(slot);
      return stream !== undefined;
    },
    async close() {
      closed = true;
      for (const stream of open) stream.leave();
      await Promise.all(links.map((link) => link.close()));
    },
  };
}
