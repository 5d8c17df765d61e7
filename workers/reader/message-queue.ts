/** The messages at hand of a stream, in its order, with the bytes that they hold. */
import type { ByteBudget } from './budget.js';
import type { BufferPool } from './buffer-pool.js';
import type { LogMessage } from './log-message.js';

export interface MessageQueue {
  /** Bytes in the queue. */
  readonly bytes: number;
  readonly size: number;
  peek(): LogMessage | undefined;
  push(message: LogMessage): void;
  /** Takes the first message out. It stays charged to the budget, and its bytes in place. Only while there is one. */
  shift(): LogMessage;
  /** Drops all messages, and releases them. */
  clear(): void;
  /**
   * Messages that were taken out and are no longer held.
   * @param reusable no request can still read their bytes: they may be overwritten
   */
  release(messages: readonly LogMessage[], reusable: boolean): void;
}

/** Consumed places at the front before the queue is moved. */
const maxConsumed = 1_024;

/** The messages' bytes are charged to `budget` by who pushes them. */
export function createMessageQueue(budget: ByteBudget, buffers: BufferPool): MessageQueue {
  let messages: (LogMessage | undefined)[] = [];
  let head = 0;
  let bytes = 0;
  const letGo = (gone: readonly (LogMessage | undefined)[], reusable: boolean): void => {
    for (const message of gone) if (message?.buffer !== undefined) buffers.letGo(message.buffer, reusable);
  };
  return {
    get bytes() {
      return bytes;
    },
    get size() {
      return messages.length - head;
    },
    peek: () => messages[head],
    push(message) {
      messages.push(message);
      bytes += message.data.length;
    },
    shift() {
      const message = messages[head] as LogMessage;
      bytes -= message.data.length;
      messages[head++] = undefined;
      if (head === messages.length) {
        messages = [];
        head = 0;
      } else if (head >= maxConsumed) {
        messages = messages.slice(head);
        head = 0;
      }
      return message;
    },
    clear() {
      budget.release(bytes);
      letGo(messages, true);
      messages = [];
      head = 0;
      bytes = 0;
    },
    release(gone, reusable) {
      letGo(gone, reusable);
      budget.release(gone.reduce((sum, message) => sum + message.data.length, 0));
    },
  };
}
