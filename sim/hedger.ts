/** A gateway's second line to the log, for messages that wait too long (gateway/log/hedge.ts, HEDGE-1 to HEDGE-3): the line is simulated. */
import type { Hedger } from '../gateway/log/hedge.js';
import type { LogWire } from '../gateway/log/log-wire.js';
import { markRetried } from '../lib/retried-copy.js';
import type { SimulatedLog } from './log.js';
import type { Process } from './process.js';

/** @param marks whether the copy says that it is a retry (HEDGE-1) */
export function startHedger(process: Process, log: SimulatedLog, delayMs: number, marks: boolean): Hedger {
  const open = new Set<string>();
  let wire: LogWire | undefined;
  let up = false;
  const line = log.connect(process, {
    onUp(openWire) {
      up = true;
      wire ??= openWire((token, reply) => {
        if (open.delete(token)) hedger.onReply(token, reply);
      });
    },
    onDown() {
      up = false;
      const tokens = [...open];
      open.clear();
      for (const token of tokens) hedger.onReply(token, undefined);
    },
  });
  const hedger: Hedger = {
    delayMs,
    earn: () => undefined,
    send(subject, token, payload) {
      if (!up || wire === undefined) return false;
      const copy = Buffer.from(payload);
      if (marks) markRetried(copy);
      wire.send(subject, token, copy);
      open.add(token);
      return true;
    },
    onReply: () => undefined,
    close: () => line.close(),
  };
  return hedger;
}
