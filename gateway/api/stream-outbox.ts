/**
 * Answers of one PublishStream call that the transport has not taken yet, and what counts for its batches until then (STREAM-1 in
 * stream-call.ts).
 */
import type { PublishStreamResponse } from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { IngestResult } from '../ingest/ingest.js';
import { toBatchResult } from './publish-batch.js';

/** What became of a batch, or news for the client. */
export type Answer =
  | { readonly case: 'accepted'; readonly value: IngestResult }
  | { readonly case: 'other'; readonly value: PublishStreamResponse['message'] };

interface Entry {
  readonly answer: Answer;
  /** Bytes that count no longer once the answer is taken, and batches that are open no longer. */
  readonly charge: number;
  readonly open: number;
}

/** What an answer may weigh, and each rejection in it, roughly. */
const answerBytes = 600;
const rejectionBytes = 200;
/** The array drops its taken answers when there are so many. */
const maxTaken = 1024;

const rejectionsOf = (answer: Answer): number =>
  answer.case === 'accepted' ? answer.value.rejections.length * rejectionBytes : 0;

export class StreamOutbox {
  #entries: Entry[] = [];
  #taken = 0;
  #rejectionBytes = 0;
  /** Of batches that are read, until their answers are taken. */
  heldBytes = 0;
  open = 0;

  /** A batch was read. */
  begin(bytes: number): void {
    this.heldBytes += bytes;
    this.open++;
  }

  /** The answer to a batch of so many bytes. */
  answer(answer: Answer, bytes: number): void {
    const more = rejectionsOf(answer);
    this.#rejectionBytes += more;
    this.heldBytes += more;
    this.#entries.push({ answer, charge: bytes + more, open: 1 });
  }

  /** News that answers no batch. */
  tell(answer: Answer): void {
    this.#entries.push({ answer, charge: 0, open: 0 });
  }

  take(): Answer | undefined {
    const entry = this.#entries[this.#taken];
    if (entry === undefined) return undefined;
    this.#taken++;
    if (this.#taken === this.#entries.length || this.#taken === maxTaken) {
      this.#entries = this.#entries.slice(this.#taken);
      this.#taken = 0;
    }
    this.heldBytes -= entry.charge;
    this.open -= entry.open;
    if (entry.open > 0) this.#rejectionBytes -= rejectionsOf(entry.answer);
    return entry.answer;
  }

  /** Answers that wait. */
  get length(): number {
    return this.#entries.length - this.#taken;
  }

  /** What they take, bytes, roughly. */
  get bytes(): number {
    return this.length * answerBytes + this.#rejectionBytes;
  }
}

/** An answer as the contract's message. */
export function toMessage(answer: Answer): PublishStreamResponse {
  return {
    $typeName: 'sluice.ingest.v1.PublishStreamResponse',
    message: answer.case === 'accepted' ? { case: 'accepted', value: toBatchResult(answer.value) } : answer.value,
  };
}
