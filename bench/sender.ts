/**
 * The seam between the generator (what is sent when, and what became of it) and a way of sending.
 */
import type { Prepared } from './payload.js';

/** A batch in flight: the generator owns the slot, the sender may read it until it has told the outcome. */
export interface BatchSlot {
  readonly index: number;
  readonly message: Prepared;
  /** Number of the batch that the slot holds now. */
  number: number;
  attempt: number;
  /** When it should have left, ms. */
  intended: number;
}

export type SendOutcome =
  | { readonly kind: 'accepted'; readonly accepted: number; readonly rejected: number }
  /** May be sent again after `afterMs`, with a higher attempt. */
  | { readonly kind: 'retry'; readonly afterMs: number; readonly reason: string }
  /** Sending it again would not help. */
  | { readonly kind: 'refused'; readonly reason: string };

export interface SenderEvents {
  /** Told exactly once for each send, in any order. */
  outcome(slotIndex: number, number: number, outcome: SendOutcome): void;
  /** There may be room again. */
  writable(): void;
  /** Nothing can be sent any more. */
  failed(error: Error): void;
}

export interface Sender {
  /** False while back-pressure leaves no room: asked before a batch is made. */
  ready(): boolean;
  /** Sends the slot's message, or says false when back-pressure leaves no room now. */
  send(slot: BatchSlot): boolean;
  close(): Promise<void>;
}
