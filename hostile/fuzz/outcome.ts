/** What became of one request, and whether that is right. */
import { fromBinary, fromJson, type JsonValue } from '@bufbuild/protobuf';
import { BatchResultSchema, PublishResponseSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { Plan } from './plan.js';

/**
 *   answered   a status came, and the answer ended or is one that may stay open
 *   reset      the gateway reset the stream
 *   ended      the gateway ended the connection
 *   not taken  the connection was refused, or the gateway asked for no more calls before it looked at this one
 *   given up   the sender reset it in the middle
 *   unsendable the sender's own library refused to send it
 *   silent     nothing for a minute after its end: a fault
 *   unended    an answer began and did not end in that time: a fault
 */
export type Fate = 'answered' | 'reset' | 'ended' | 'not taken' | 'given up' | 'unsendable' | 'silent' | 'unended';

export interface RequestOutcome {
  readonly fate: Fate;
  /** Of the answer, when its status and body are known. */
  readonly answer?: Answer | undefined;
  /** ms from the request's end to what became of it; undefined: its end was not sent. 0: its answer stays open. */
  readonly waitedMs?: number | undefined;
}

export interface Answer {
  readonly status: string;
  readonly grpcStatus: string | undefined;
  readonly body: Buffer;
}

/** Whole requests are to be answered within this time after their end, ms. */
export const answerWithinMs = 2_000;
/** A request without an answer by then never gets one, ms: no time-out of the gateway is longer. */
export const neverMs = 60_000;

/** The wait for the answer to one request. */
export class Wait {
  private since = performance.now();
  private late: NodeJS.Timeout | undefined;
  private never: NodeJS.Timeout | undefined;

  /**
   * @param onLate called after {@link answerWithinMs}
   * @param onNever called after {@link neverMs}
   */
  constructor(
    private readonly onLate: () => void,
    private readonly onNever: () => void,
  ) {
    this.begin();
  }

  /** The request's end is sent now. */
  begin(): void {
    this.cancel();
    this.since = performance.now();
    this.late = setTimeout(this.onLate, answerWithinMs);
    this.never = setTimeout(this.onNever, neverMs);
  }

  cancel(): void {
    clearTimeout(this.late);
    clearTimeout(this.never);
  }

  /** Since the request's end. */
  get ms(): number {
    return performance.now() - this.since;
  }
}

/** Whether an answer to this path may stay open after the request's end. */
export const mayStayOpen = (path: string): boolean => /Stream|Watch|ServerReflectionInfo/.test(path);

/** Events that the answer to a valid request says to be accepted; undefined: none. */
export function acceptedBy({ request }: Plan, { status, grpcStatus, body }: Answer): number | undefined {
  const type = request.headers.find(([name]) => name === 'content-type')?.[1] ?? '';
  try {
    if (request.path.startsWith('/v1/')) {
      return status === '202'
        ? fromJson(BatchResultSchema, JSON.parse(body.toString()) as JsonValue).accepted
        : undefined;
    }
    if (status !== '200' || (grpcStatus ?? '0') !== '0') return undefined;
    const bytes = type.includes('grpc-web-text') ? Buffer.from(firstGroup(body.toString()), 'base64') : body;
    const message = type.includes('grpc') ? bytes.subarray(5, 5 + bytes.readUInt32BE(1)) : bytes;
    const response = type.includes('json')
      ? fromJson(PublishResponseSchema, JSON.parse(message.toString()) as JsonValue)
      : fromBinary(PublishResponseSchema, message);
    return response.result?.accepted;
  } catch {
    return undefined;
  }
}

/** Base64 of the message and of the trailers may follow one another, each padded. */
const firstGroup = (text: string): string => /^[^=]*={0,2}/.exec(text)?.[0] ?? '';

/** In words, for a failure. */
export const shownAnswer = (answer: Answer | undefined): string =>
  answer === undefined
    ? 'no answer'
    : `status ${answer.status}${answer.grpcStatus === undefined ? '' : `, grpc-status ${answer.grpcStatus}`}: ${answer.body.toString('latin1').slice(0, 200)}`;
