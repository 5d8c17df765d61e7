/**
 * Answers of one PublishStream call that the transport has not taken yet, and what counts for its batches until then (STREAM-1 in
 * stream-call.ts).
 */
import type { PublishStreamResponse } from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { IngestResult } from '../ingest/ingest.js';
import { toldBytes } from '../ingest/told-bytes.js';
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
  /** Of these bytes, those of its texts. */
  readonly told: number;
}

/** What an answer may weigh without its texts, roughly. */
const answerBytes = 600;
/** The array drops its taken answers when there are so many. */
const maxTaken = 1024;

export class StreamOutbox {
  #entries: Entry[] = [];
  #taken = 0;
  #toldBytes = 0;
  /** Of batches that are read, until their answers are taken. */
  heldBytes = 0;
  open = 0;
  #closed = false;

  /** A batch was read. */
  begin(bytes: number): void {
    this.heldBytes += bytes;
    this.open++;
  }

  /** The answer to a batch of so many bytes. */
  answer(answer: Answer, bytes: number): void {
    if (this.#closed) return;
    const told = answer.case === 'accepted' ? toldBytes(answer.value) : 0;
    this.#toldBytes += told;
    this.heldBytes += told;
    this.#entries.push({ answer, charge: bytes + told, open: 1, told });
  }

  /** News that answers no batch. */
  tell(answer: Answer): void {
    if (!this.#closed) this.#entries.push({ answer, charge: 0, open: 0, told: 0 });
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
    this.#toldBytes -= entry.told;
    return entry.answer;
  }

  /** No answer is taken any more. Batches without an outcome keep the call in memory, but not its answers. */
  close(): void {
    this.#closed = true;
    this.#entries = [];
    this.#taken = 0;
    this.#toldBytes = 0;
  }

  /** Answers that wait. */
  get length(): number {
    return this.#entries.length - this.#taken;
  }

  /** What they take, bytes, roughly. */
  get bytes(): number {
    return this.length * answerBytes + this.#toldBytes;
  }
}

/** An answer as the contract's message. */
export function toMessage(answer: Answer): PublishStreamResponse {
  return {
    $typeName: 'sluice.ingest.v1.PublishStreamResponse',
    message: answer.case === 'accepted' ? { case: 'accepted', value: toBatchResult(answer.value) } : answer.value,
  };
}
