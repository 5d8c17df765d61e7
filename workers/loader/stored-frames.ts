/**
 * What a message of the log holds, batch by batch, as objects, for the commands that read the log (audit, where). The loader walks over
 * the same frames without objects (frames.ts).
 */
import { batchIdIn, eachFrame, tenantIn } from './frames.js';

/** One StoredBatch of a message. */
export interface StoredFrame {
  /** Its place in the message, from 0. */
  readonly index: number;
  /** Where its fields begin and end in the message. */
  readonly from: number;
  readonly to: number;
  readonly tenant: string;
  readonly batchId: string;
  readonly attempt: number;
  /** Events, as the loader counts them. */
  readonly events: number;
}

/** The batches of a message; those before the fault, when it is not a sequence of whole batches. */
export function framesOf(data: Uint8Array): StoredFrame[] {
  const frames: StoredFrame[] = [];
  eachFrame(data, (frame, index) => {
    frames.push({
      index,
      from: frame.body,
      to: frame.to,
      tenant: tenantIn(data, frame),
      batchId: batchIdIn(data, frame),
      attempt: frame.attempt,
      events: frame.events,
    });
  });
  return frames;
}
