/**
 * One PublishStream of the load, over gRPC on bare HTTP/2: a full gRPC client would cost more CPU than the gateway that it
 * measures. Any number of batches may be in flight on it.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, constants } from 'node:http2';
import { FrameReader, readAnswer } from './grpc-answers.js';
import type { CallHeaders } from './h2-link.js';
import type { BatchSlot, SenderEvents, SendOutcome } from './sender.js';

export const publishStreamPath = '/sluice.ingest.v1.IngestService/PublishStream';

/** Why a stream is over. */
export interface StreamEnd {
  readonly reason: string;
  /** gRPC's status; undefined when none came. */
  readonly status: string | undefined;
  /** The server refused the stream without looking at it: what was sent may be sent again as it was. */
  readonly unseen: boolean;
  /** Slots and batch numbers that have no answer. */
  readonly unanswered: readonly (readonly [slot: number, number: number])[];
}

export interface StreamEvents extends Pick<SenderEvents, 'outcome' | 'writable' | 'failed'> {
  /** The gateway asks for no more on this connection. */
  draining(session: ClientHttp2Session): void;
  /** Comes once, at the end. */
  over(end: StreamEnd): void;
}

export interface PublishStream {
  readonly session: ClientHttp2Session;
  /** `full`: the stream's buffer has no room until `writable`; `leaving`: takes no more. */
  readonly phase: 'open' | 'full' | 'leaving';
  /** Batches without an answer. */
  readonly inFlight: number;
  send(slot: BatchSlot): void;
  /** Takes no more, and ends when all is answered. */
  leave(): void;
}

export function openPublishStream(
  session: ClientHttp2Session,
  headers: CallHeaders,
  events: StreamEvents,
): PublishStream {
  const stream: ClientHttp2Stream = session.request(headers, { endStream: false });
  const waiting = new Map<number, number>();
  const frames = new FrameReader();
  let phase: PublishStream['phase'] = 'open';
  let reason = 'stream closed';
  let status: string | undefined;

  const note = (answer: Record<string, unknown>): void => {
    if (answer['grpc-status'] !== undefined) {
      status = String(answer['grpc-status']);
      reason = `gRPC status ${status}, ${String(answer['grpc-message'] ?? '')}`;
    } else if (answer[':status'] !== undefined && answer[':status'] !== 200) {
      reason = `HTTP status ${String(answer[':status'])}`;
    }
  };
  const leave = (): void => {
    phase = 'leaving';
    if (waiting.size === 0) stream.end();
  };
  const take = (message: Buffer): void => {
    const answer = readAnswer(message);
    if (answer.kind === 'draining') {
      leave();
      events.draining(session);
    } else if (answer.kind !== 'other') {
      const { slot, number } = answer.name;
      if (waiting.get(slot) !== number) throw new Error('an answer names a batch that is not in flight on this stream');
      waiting.delete(slot);
      events.outcome(slot, number, outcomeOf(answer));
      if (phase === 'leaving') leave();
    }
  };
  stream.on('response', note);
  stream.on('trailers', note);
  stream.on('drain', () => {
    if (phase === 'full') phase = 'open';
    events.writable();
  });
  stream.on('data', (chunk: Buffer) => {
    try {
      frames.push(chunk, take);
    } catch (error) {
      events.failed(error instanceof Error ? error : new Error(String(error)));
    }
  });
  stream.on('error', (error: Error) => {
    reason = error.message;
  });
  stream.on('close', () => {
    phase = 'leaving';
    const unseen = stream.rstCode === constants.NGHTTP2_REFUSED_STREAM;
    events.over({ reason, status, unseen, unanswered: [...waiting] });
  });

  return {
    session,
    leave,
    get phase() {
      return phase;
    },
    get inFlight() {
      return waiting.size;
    },
    send({ index, number, message }) {
      waiting.set(index, number);
      if (!stream.write(message.bytes) && phase === 'open') phase = 'full';
    },
  };
}

function outcomeOf(answer: Exclude<ReturnType<typeof readAnswer>, { kind: 'draining' | 'other' }>): SendOutcome {
  if (answer.kind === 'accepted') {
    return { kind: 'accepted', accepted: answer.accepted, rejected: answer.rejected };
  }
  const { code, message, retryAfterMs } = answer;
  if (retryAfterMs === undefined) return { kind: 'refused', reason: `${code} ${message}` };
  return { kind: 'retry', afterMs: retryAfterMs, reason: message };
}
