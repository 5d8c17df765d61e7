/**
 * How virtual clients speak to the gateway: on bare HTTP/2, a number of clients to a connection, as behind a proxy or an SDK's pool.
 * A client has a PublishStream of its own, or makes a unary call for each batch, over gRPC or Connect.
 *
 * Honours what a client must: flow control, `Draining`, GOAWAY, refused streams, retries, lost connections (with back-off). A call costs
 * the load process about 0.3 ms of CPU, all its bookkeeping included (half streams, half unary calls; `bench -- endurance`).
 */
import type { ClientHttp2Session } from 'node:http2';
import { type CallProtocol, callHeaders, keepLinked, type Link } from '../h2-link.js';
import { openPublishStream, type PublishStream, publishStreamPath } from '../publish-stream.js';
import type { SenderEvents } from '../sender.js';
import { callUnary } from '../unary-call.js';
import { publish } from '../unary-methods.js';
import type { Caller, Client } from './crowd.js';

export interface CallTarget {
  /** `http://127.0.0.1:7070` */
  readonly url: string;
  /** By customer. */
  readonly keys: readonly string[];
  readonly connections: number;
}

/** A failed call is sent again after this, ± half. */
const retryMs = 100;
/** A call that was refused unseen comes again after this, so often at most. */
const refusalPauseMs = 5;
const maxRefusals = 20;

export function openCalls(
  target: CallTarget,
  clients: readonly Client[],
  events: SenderEvents,
): Caller & { close(): void } {
  const headers = target.keys.map((key) => ({
    stream: callHeaders(publishStreamPath, key, 'grpc'),
    grpc: callHeaders(publish.path, key, 'grpc'),
    connect: callHeaders(publish.path, key, 'connect'),
  }));
  /** By client. */
  const streams = new Map<number, PublishStream>();
  /** By client: how often its call was refused unseen, which lets a client send it again as it was. */
  const refusals = new Uint8Array(clients.length);
  let closed = false;
  const links = Array.from({ length: target.connections }, () =>
    keepLinked(target.url, {
      connected: events.writable,
      left: (session) => {
        for (const [client, stream] of streams) {
          if (stream.session !== session) continue;
          stream.leave();
          if (stream.inFlight === 0) streams.delete(client);
        }
      },
      failed: events.failed,
    }),
  );

  const settle: SenderEvents['outcome'] = (index, ...outcome) => {
    refusals[index] = 0;
    events.outcome(index, ...outcome);
  };
  const send = (client: Client): boolean => {
    const link = links[client.index % links.length]!;
    const { session } = link;
    const { calls } = client.group;
    const stream = streams.get(client.index);
    if (stream !== undefined) stream.send(client);
    else if (session === undefined) return false;
    else if (calls === 'stream') openStream(client, link, session).send(client);
    else call(client, session, calls);
    return true;
  };
  const sendAgain = (client: Client): void => {
    if (!closed && !send(client)) setTimeout(sendAgain, refusalPauseMs, client);
  };
  const lose = (client: Client, number: number, reason: string, unseen: boolean): void => {
    if (unseen && refusals[client.index]!++ < maxRefusals) setTimeout(sendAgain, refusalPauseMs, client);
    else settle(client.index, number, { kind: 'retry', afterMs: retryMs * (0.5 + Math.random()), reason });
  };

  const openStream = (client: Client, link: Link, session: ClientHttp2Session): PublishStream => {
    const forget = (): void => {
      if (streams.get(client.index) === stream) streams.delete(client.index);
    };
    const stream: PublishStream = openPublishStream(session, headers[client.group.customer]!.stream, {
      ...events,
      outcome: (...outcome) => {
        if (stream.phase === 'leaving') forget();
        settle(...outcome);
      },
      draining: link.leave,
      over: ({ reason, unseen, unanswered }) => {
        forget();
        for (const [, number] of unanswered) lose(client, number, reason, unseen);
      },
    });
    streams.set(client.index, stream);
    return stream;
  };

  const call = (client: Client, session: ClientHttp2Session, protocol: CallProtocol): void => {
    const { index, number, message } = client;
    // The same bytes; Connect has them without gRPC's frame.
    const bytes = protocol === 'grpc' ? message.bytes : message.bytes.subarray(5);
    callUnary(session, protocol, headers[client.group.customer]![protocol], bytes, (answer) => {
      if (answer.kind === 'message') {
        const accepted = publish.accepted(answer.message, { slot: index, number, events: message.events });
        if (accepted !== undefined) settle(index, number, { kind: 'accepted', ...accepted });
        else events.failed(new Error('the answer of Publish does not name the batch that was sent'));
      } else if (answer.retry === 'final') settle(index, number, { kind: 'refused', reason: answer.reason });
      else lose(client, number, answer.reason, answer.retry === 'unseen');
    });
  };

  return {
    send,
    close() {
      closed = true;
      for (const link of links) void link.close();
    },
  };
}
