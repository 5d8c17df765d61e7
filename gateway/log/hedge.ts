/**
 * Sends a message without a timely answer once more over a second connection; the first answer counts. It shortens the tail of a
 * connection that is slow for a moment (a lost packet, a busy server on the way), and costs traffic.
 *
 *   HEDGE-1  The copy is a retry: each batch of attempt 1 in it says attempt 2, so that the loader finds the double and stores it once
 *       (LOAD-5). This makes hedging safe, without JetStream's own duplicate window. Both copies come within the hour for which LOAD-5
 *       remembers: after 20 s the gateway gives up a connection that stalls, and its bytes with it.
 *   HEDGE-2  At most one message in twenty is sent twice, few at a time, and none while the log is full, the publish window is used
 *       up or messages wait for it: then the log is slow, not the connection, and more traffic would make it slower.
 *   HEDGE-3  A refusal of one copy says nothing of the other. Only when both are answered is the outcome known; else it is
 *       outcome_unknown, as PUB-3 has it.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import type { Logger } from '../../lib/logger.js';
import { markRetried } from '../../lib/retried-copy.js';
import type { GatewayMetrics } from '../metrics.js';
import { createLogWire, type LogReply, type LogWire } from './log-wire.js';
import { createPayloadPool } from './payload-pool.js';

export interface Hedger {
  /** How long a message waits for its answer before a copy is sent, ms. */
  readonly delayMs: number;
  /** A message was sent: it earns a part of a copy. */
  earn(): void;
  /** Sends a copy of the message as a retry. False: not now (HEDGE-2). `payload` is read before it returns. */
  send(subject: string, token: string, payload: Uint8Array): boolean;
  /** Where answers go; `undefined` for the reply: the copy's connection was lost, no answer will come. */
  onReply: (token: string, reply: LogReply | undefined) => void;
  /** Ends it; the connection stays the caller's to close. */
  close(): void;
}

export interface HedgerOptions {
  readonly nats: Promise<NatsConnection>;
  readonly delayMs: number;
  /** Usual size of a message, bytes. */
  readonly payloadBytes: number;
  readonly metrics: Pick<GatewayMetrics, 'hedged'>;
  readonly logger: Logger;
}

/** HEDGE-2: copies per message, saved up to so many, and without an answer at most. */
const share = 0.05;
const maxSaved = 16;
const maxOpen = 16;

export function createHedger(options: HedgerOptions): Hedger {
  const { metrics, logger } = options;
  const pool = createPayloadPool(options.payloadBytes, maxOpen);
  const open = new Map<string, Buffer>();
  let saved = maxSaved;
  let wire: LogWire | undefined;
  let connected = false;
  let closed = false;

  const lose = (): void => {
    connected = false;
    const tokens = [...open.keys()];
    open.clear();
    for (const token of tokens) hedger.onReply(token, undefined);
  };

  const watch = async (): Promise<void> => {
    const nc = await options.nats;
    if (closed) return;
    const statuses = nc.status();
    wire = createLogWire(nc, (token, reply) => {
      const payload = open.get(token);
      if (payload === undefined) return;
      open.delete(token);
      pool.give(payload);
      hedger.onReply(token, reply);
    });
    connected = nc.info !== undefined;
    for await (const { type } of statuses) {
      if (closed) return;
      if (type === 'disconnect' || type === 'close') lose();
      else if (type === 'reconnect') connected = true;
    }
  };
  watch().catch((error: unknown) =>
    logger.warn({ error: String(error) }, 'no second connection: nothing is sent twice'),
  );

  const hedger: Hedger = {
    delayMs: options.delayMs,
    earn() {
      saved = Math.min(maxSaved, saved + share);
    },
    send(subject, token, payload) {
      if (closed || !connected || wire === undefined) return false;
      if (saved < 1 || open.size >= maxOpen) {
        metrics.hedged('held_back');
        return false;
      }
      const copy = pool.take(payload.length);
      copy.set(payload);
      markRetried(copy);
      try {
        wire.send(subject, token, copy);
      } catch {
        // Thrown before anything is sent: the connection is being closed, or its server takes less.
        return false;
      }
      saved--;
      open.set(token, copy);
      metrics.hedged('sent');
      return true;
    },
    onReply: () => {},
    close() {
      closed = true;
      wire?.close();
      open.clear();
    },
  };
  return hedger;
}
