/**
 * Finds messages that have been without an answer for so long that they are sent a second time (hedge.ts). One timer for all.
 */
import type { GatewayClock } from '../clock.js';
import type { Hedger } from './hedge.js';
import type { Flight } from './publish-window.js';

export interface HedgeTimer {
  /** A message was sent. */
  sent(): void;
  close(): void;
}

export function createHedgeTimer(
  hedger: Hedger,
  { now, after }: Pick<GatewayClock, 'now' | 'after'>,
  /** On the wire, the oldest first. */
  flights: ReadonlyMap<string, Flight>,
  /** HEDGE-2: whether the log is quick, and has room. */
  isCalm: (at: number) => boolean,
): HedgeTimer {
  let cancel: (() => void) | undefined;

  const arm = (ms: number): void => {
    cancel ??= after(ms, look);
  };

  const look = (): void => {
    cancel = undefined;
    const at = now();
    const limit = at - hedger.delayMs;
    const calm = isCalm(at);
    for (const [token, flight] of flights) {
      if (flight.sentAt > limit) {
        arm(Math.max(1, flight.sentAt - limit));
        return;
      }
      if (flight.state !== 'sent') continue;
      // Looked at once: a message that may not be sent twice now is not looked at again.
      flight.state = calm && hedger.send(flight.message.subject, token, flight.payload) ? 'twice' : 'once';
    }
  };

  return {
    sent() {
      hedger.earn();
      arm(hedger.delayMs);
    },
    close() {
      cancel?.();
      cancel = undefined;
    },
  };
}
