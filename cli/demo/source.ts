/** What the demo streams: events in order, how many there will be, and what is worth telling about them. */
import type { EventInit } from '../../sdk-gen/typescript/src/index.js';

export interface Source {
  /** One line for people. */
  readonly title: string;
  /** Events that `events` will give. */
  readonly total: number;
  /** Without event ids; read one at a time, so that no more than a few are in memory. */
  events(): AsyncIterable<EventInit>;
  /** Worth telling about the input, e.g. lines left out. */
  readonly notes: readonly string[];
}
