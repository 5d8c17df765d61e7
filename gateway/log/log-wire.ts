/**
 * The publisher's line to JetStream: messages out, answers back to an inbox of its own. What the publisher knows of NATS is
 * {@link LogWire}; the simulator has another one.
 *
 * A message goes on NATS's wire without a copy: the PUB line, the payload and the line end are one piece of memory, which goes to the
 * socket.
 *
 * nats.js's own `publish` queues the three apart and joins them into a new, zeroed buffer before each write: one more
 * copy of every byte, and as much short-lived memory outside the heap as there is traffic, which is what drives the
 * collector. Here the payload pool leaves room for the line in front of the payload and for the line end behind it. It
 * takes what the library exports for transports and the like (`@nats-io/nats-core/internal`); log-wire.it.test.ts holds
 * that it is still there. Saves 0.09 of 0.60 CPU-s per million events at batches of 500 (bench/ingest-core.ts).
 */
import type { Msg, NatsConnection } from '@nats-io/nats-core';
import type { NatsConnectionImpl } from '@nats-io/nats-core/internal';
import { newInbox } from '../../lib/nats.js';
import { KiB } from '../../lib/units.js';

/** Room that must lie before a payload, bytes: "PUB", subject, reply and size, of which tenant ids bound the subject. */
export const wireHeadBytes = 256;
/** Room that must lie behind it: the line end. */
export const wireTailBytes = 2;

/**
 * From this size on a message is written at once, alone. Smaller ones are joined by the library until the end of the
 * tick: a copy of few bytes is cheaper than a system call for each.
 */
const aloneBytes = 16 * KiB;

/** An answer of JetStream, or the server's word that there is no subscriber. */
export type LogReply = Pick<Msg, 'data' | 'headers' | 'string'>;

export interface LogWire {
  /**
   * Sends `payload`, which lies in a buffer with room around it (see above). The memory is read until JetStream has
   * answered, or the connection is lost. Subject and token are ASCII without blanks; the answer comes under the token.
   * @throws Error before anything is sent: the connection is closed, or the payload is above the server's limit
   */
  send(subject: string, token: string, payload: Buffer): void;
  /** Resolves when the server has read all that was sent before. Rejects when the connection is lost. */
  flush(): Promise<void>;
  /** No more answers are wanted. Does not close the connection. */
  close(): void;
}

/** Opens a line over a connection that is there; `onReply` gets what comes back, each under its message's token. */
export type OpenLogWire = (onReply: (token: string, reply: LogReply) => void) => LogWire;

export function createLogWire(nc: NatsConnection, onReply: (token: string, reply: LogReply) => void): LogWire {
  const { protocol } = nc as NatsConnectionImpl;
  const inbox = `${newInbox(nc)}.`;
  const subscription = nc.subscribe(`${inbox}*`, {
    callback: (error, reply) => {
      if (error === null) onReply(reply.subject.slice(inbox.length), reply);
    },
  });
  return {
    send(subject, token, payload) {
      if (nc.isClosed() || protocol.noMorePublishing) throw new Error('the connection to NATS is closed or draining');
      const size = payload.length;
      const max = protocol.info?.max_payload ?? Number.POSITIVE_INFINITY;
      if (size > max) throw new Error(`the payload has ${size} bytes; the server takes at most ${max}`);
      const line = `PUB ${subject} ${inbox}${token} ${size}\r\n`;
      const from = payload.byteOffset - line.length;
      if (line.length > wireHeadBytes || from < 0) throw new Error('no room for the PUB line before the payload');
      const frame = new Uint8Array(payload.buffer, from, line.length + size + wireTailBytes);
      for (let i = 0; i < line.length; i++) frame[i] = line.charCodeAt(i);
      frame[frame.length - 2] = 0x0d;
      frame[frame.length - 1] = 0x0a;
      protocol.outMsgs++;
      protocol.outBytes += size;
      // What the library holds back leaves first; while it is reconnecting, it holds everything back.
      if (size >= aloneBytes && protocol.connected && protocol.outbound.size() === 0) protocol.transport.send(frame);
      else protocol.sendCommand(frame);
    },
    flush: () => nc.flush(),
    close: () => subscription.unsubscribe(),
  };
}
