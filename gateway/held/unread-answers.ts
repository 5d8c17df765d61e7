/**
 * Counts answers that a client does not read. While the transport takes no more, they gather. Their bytes count like those of
 * unfinished requests (unfinished.ts), and a stream that makes no room for 30 s ends. Its unread answers would keep its batches open
 * forever.
 */
import { SluiceError } from '../../lib/errors.js';
import { unreadMs } from '../listener/unread-calls.js';
import type { UnfinishedBody, UnfinishedBytes } from './unfinished.js';

export interface UnreadWatch {
  /** The transport takes no more. */
  readonly full: boolean;
  /** A write has filled it. */
  blocked(): void;
  drained(): void;
  /** So many bytes of answers wait. */
  hold(bytes: number): void;
  close(): void;
}

/**
 * @param end is called once: the client has not read for too long, or there is no room for what it leaves unread
 * @param afterMs how long a client may make no room
 */
export function createUnreadWatch(
  unfinished: UnfinishedBytes,
  tenant: string,
  end: (reason: SluiceError) => void,
  afterMs = unreadMs,
): UnreadWatch {
  let full = false;
  /** Of `performance.now()`. */
  let since = 0;
  let timer: NodeJS.Timeout | undefined;
  let body: UnfinishedBody | undefined;

  /** One timer at most, which outlives many fillings: a busy stream fills and drains all the time. */
  const arm = (ms: number): void => {
    timer = setTimeout(() => {
      timer = undefined;
      if (!full) return;
      const left = since + afterMs - performance.now();
      if (left > 0) return arm(left);
      close();
      end(unread());
    }, ms).unref();
  };
  const close = (): void => {
    clearTimeout(timer);
    body?.close();
  };

  return {
    get full() {
      return full;
    },
    blocked() {
      full = true;
      since = performance.now();
      if (timer === undefined) arm(afterMs);
    },
    drained() {
      full = false;
      body?.hold(0, 0);
    },
    hold(bytes) {
      if (body === undefined) {
        body = unfinished.open(tenant, { pause() {}, resume() {}, refuse: end });
        body.wait();
      }
      body.hold(bytes, 0);
    },
    close,
  };
}

/** The end of a stream whose answers are not read. */
export const unread = (): SluiceError =>
  new SluiceError('answers_unread', `The client has not read its answers for ${unreadMs / 1_000} s.`, {
    outcomeUnknown: true,
    retryAfterMs: 0,
  });
