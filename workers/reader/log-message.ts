import type { ReadBuffer } from './buffer-pool.js';

/** A message of a shard's stream. */
export interface LogMessage {
  /** Stream sequence. Stays far below 2^53. */
  readonly sequence: number;
  /** JetStream's timestamp, ms since 1970. */
  readonly timeMs: number;
  readonly data: Uint8Array;
  /** The memory that the data are a window on, which is used again once the message is let go. */
  readonly buffer?: ReadBuffer | undefined;
}
