/** Where a stream begins and ends, while workers trim it: an audit asks again before it finds fault. */
import type { JetStreamManager } from '@nats-io/jetstream';
import { streamInfo } from '../../lib/stream-info.js';

export interface StreamFront {
  /** Below this sequence messages are gone, as far as is known. Infinity when there is no stream. */
  readonly start: number;
  /** The last message that the stream had when it was last asked: below the last block's when it went backwards. */
  readonly last: number;
  /** Asks the stream. @returns `start` */
  ask(): Promise<number>;
  /** A message of this sequence is the first that is left. */
  beginsAt(sequence: number): void;
}

/** @param end undefined when there is no stream */
export function createStreamFront(
  jsm: JetStreamManager,
  stream: string,
  end: { readonly first: number; readonly last: number } | undefined,
): StreamFront {
  let start = end?.first ?? Number.POSITIVE_INFINITY;
  let last = end?.last ?? 0;
  return {
    get start() {
      return start;
    },
    get last() {
      return last;
    },
    async ask() {
      if (end === undefined) return start;
      const { state } = await streamInfo(jsm, stream);
      start = Math.max(start, state.first_seq);
      last = state.last_seq;
      return start;
    },
    beginsAt(sequence) {
      start = Math.max(start, sequence);
    },
  };
}
