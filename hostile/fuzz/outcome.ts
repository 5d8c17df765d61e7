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
 *   silent     nothing for 2 s after its end, and later requests were answered: a fault
 *   unended    an answer began and did not end in that time: a fault
 */
export type Fate = 'answered' | 'reset' | 'ended' | 'not taken' | 'given up' | 'unsendable' | 'silent' | 'unended';

export interface Outcome {
  readonly fate: Fate;
  /** Of the answer, when its status and body are known. */
  readonly answer?: Answer | undefined;
}

export interface Answer {
  readonly status: string;
  readonly grpcStatus: string | undefined;
  readonly body: Buffer;
}

/** Whole requests are to be answered within this time after their end, ms. */
export const answerWithinMs = 2_000;
/** After that, for a gateway that has little of a busy machine: so many later requests are answered, one after another. */
const lastChances = 5;
const lastChanceMs = 1_000;

/** Resolves when the gateway has answered a simple request on a connection of its own. */
export type Probe = () => Promise<void>;

/**
 * Calls back when the time is over, and the gateway has answered several requests that came after it: on a busy machine the gateway may
 * have had no time for any. @returns what ends that
 */
export function whenSilent(probe: Probe, onSilent: () => void): () => void {
  let ended = false;
  let timer: NodeJS.Timeout | undefined;
  const wait = (chances: number, ms: number): void => {
    timer = setTimeout(() => {
      if (chances === 0) return onSilent();
      void probe().then(() => {
        if (!ended) wait(chances - 1, lastChanceMs);
      });
    }, ms);
  };
  wait(lastChances, answerWithinMs);
  return () => {
    ended = true;
    clearTimeout(timer);
  };
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
