/**
 * The unary calls that the load makes (send-unary.ts), and what an answer must hold to count as "accepted".
 */
import { Fields, readAnswer } from './grpc-answers.js';

/** What a call was made for. */
export interface Sent {
  readonly slot: number;
  readonly number: number;
  readonly events: number;
}

export interface Accepted {
  readonly accepted: number;
  readonly rejected: number;
}

export interface UnaryMethod {
  /** `/package.Service/Method` */
  readonly path: string;
  /** Reads the message of an answer; undefined when it does not say that this very batch was taken. */
  accepted(message: Buffer, sent: Sent): Accepted | undefined;
}

/** Ours. */
export const publish: UnaryMethod = {
  path: '/sluice.ingest.v1.IngestService/Publish',
  accepted(message, sent) {
    // An error of Connect is JSON, which starts with a brace; a PublishResponse with the tag of its field 1.
    if (message[0] !== 0x0a) return undefined;
    const answer = readAnswer(message);
    if (answer.kind !== 'accepted' || answer.name.slot !== sent.slot || answer.name.number !== sent.number)
      return undefined;
    return { accepted: answer.accepted, rejected: answer.rejected };
  },
};

/**
 * OTLP's, for logs. Its answer names no batch, and says nothing when all was taken (the Collector: a partial_success that says
 * nothing): that it belongs to the call is HTTP/2's word, and that it is a success is the gRPC status', without which
 * send-unary.ts does not ask here.
 */
export const exportLogs: UnaryMethod = {
  path: '/opentelemetry.proto.collector.logs.v1.LogsService/Export',
  accepted(message, { events }) {
    let rejected = 0;
    const answer = new Fields(message, 0, message.length);
    while (answer.next()) {
      if (answer.field !== 1) continue;
      const partialSuccess = new Fields(message, answer.start, answer.end);
      while (partialSuccess.next()) if (partialSuccess.field === 1) rejected = partialSuccess.value;
    }
    return rejected > events ? undefined : { accepted: events - rejected, rejected };
  },
};
