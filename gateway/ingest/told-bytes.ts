/**
 * What the texts of a result take in memory: why events were rejected, and the names of ignored fields. A few hundred bytes of request
 * can lead to 50 KiB of them, so they count beside the batch: in admission until the log has answered, and then as answers that wait.
 */
import type { IngestResult } from './pending-batches.js';

/** Of a rejection beyond its characters: the object, and the pieces that V8 joins a text from. Measured: 75 to 400 bytes in all. */
const rejectionBytes = 256;
const nameBytes = 64;

/** Bytes, roughly. 0 for the results of nearly all batches, which reject nothing. */
export function toldBytes({ rejections, ignoredFields }: Pick<IngestResult, 'rejections' | 'ignoredFields'>): number {
  let bytes = 0;
  for (const { field, message } of rejections) bytes += rejectionBytes + field.length + message.length;
  if (ignoredFields !== undefined) for (const name of ignoredFields) bytes += nameBytes + name.length;
  return bytes;
}
