/** What the publisher takes. */
import type { SluiceError } from '../../lib/errors.js';
import type { LogAck } from './jetstream-answer.js';

/** Something to publish. */
export interface Outgoing {
  readonly subject: string;
  /**
   * Called at most once, right before sending; undefined: there is nothing left to send. `allocate` gives a buffer whose
   * content is arbitrary; the publisher takes it back.
   */
  encode(allocate: (size: number) => Buffer): Buffer | undefined;
  /** Called exactly once. */
  settle(outcome: LogAck | SluiceError): void;
}
