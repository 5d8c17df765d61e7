/**
 * The pulls of one consumer: one is open at a time, with its bytes reserved in the budget. Messages arrive in order without a gap, or
 * the consumer is broken.
 */
import { nanos } from '@nats-io/nats-core';
import { MiB } from '../../lib/units.js';
import type { ByteBudget } from './budget.js';
import type { BufferPool } from './buffer-pool.js';
import type { MessageQueue } from './message-queue.js';
import type { Delivery, NatsSocket, NatsSocketEvents } from './nats-socket.js';

/** How a pull is shaped. The heartbeat tells a quiet stream from a lost consumer. */
const pullMessages = 1_000;
const pullBytes = 4 * MiB;
const maxPullBytes = 256 * MiB;
const pullExpiresMs = 5_000;
const heartbeatMs = 1_000;
/** Ticks without a sign of life before the consumer counts as lost. Ticks, not time: a busy event loop is no silence. */
const silentTicks = 6;

/** How far a reader is in one generation of the stream, since the last seek that dropped what was at hand. */
export interface Progress {
  readonly generation: string;
  /** Where it began. */
  readonly sought: number;
  /** Last sequence that left the queue, or `sought`. */
  taken: number;
  /** Last sequence that was received; the consumer goes on after it. */
  received: number;
  /** Messages after `received` and up to here are known to be gone (gap.ts). */
  goneTo: number;
}

/** The pull that is open, or none. `left` messages may still come, and so many bytes are reserved for them. */
type Pull = { readonly kind: 'none' } | { readonly kind: 'open'; left: number; reserved: number; ticks: number };

/** Why nothing more comes of a consumer. */
export interface Break {
  readonly why: string;
  /** Messages that it passed over, first and last. */
  readonly missing?: { readonly from: number; readonly to: number };
}

export interface PullsOptions {
  readonly progress: Progress;
  /** The reader still wants this consumer. */
  readonly current: () => boolean;
  readonly queue: MessageQueue;
  readonly budget: ByteBudget;
  readonly buffers: BufferPool;
  readonly wake: () => void;
  /** Where the pulls' answers are sent: subjects below this one. */
  readonly inbox: string;
  /** Largest message that the server allows, bytes. */
  readonly maxPayload: number;
}

export interface Pulls extends NatsSocketEvents {
  readonly open: boolean;
  readonly broken: Break | undefined;
  /** Something came of this consumer. */
  readonly alive: boolean;
  /** Bytes of the next pull. */
  readonly chunk: number;
  /** Opens a pull. @param subject to ask for it */
  pull(natsSocket: NatsSocket, subject: string): void;
  /** Time passes. */
  tick(): void;
  /** Releases what is reserved. */
  end(): void;
}

export function createPulls(options: PullsOptions): Pulls {
  const { progress, current, queue, budget, buffers, wake, inbox } = options;
  let pull: Pull = { kind: 'none' };
  let pulls = 0;
  let delivered = 0;
  let alive = false;
  let broken: Break | undefined;
  let chunk = Math.max(pullBytes, options.maxPayload + 4096);

  const end = (): void => {
    if (pull.kind === 'open') budget.release(pull.reserved);
    pull = { kind: 'none' };
    wake();
  };
  const breakOff = (why: Break): void => {
    broken = why;
    end();
  };
  /** What is wrong with a delivery; undefined when it is the next one. */
  const faultOf = (sequence: number, delivery: number): Break | undefined => {
    const { received, goneTo } = progress;
    if (delivery !== delivered + 1) return { why: `delivery ${delivery} came after ${delivered}` };
    // Servers up to 2.9 let a consumer begin earlier than it was asked to when the stream is shorter.
    if (sequence <= received) return { why: `message ${sequence} came after ${received}` };
    if (sequence === received + 1 || sequence <= goneTo + 1) return undefined;
    const missing = { from: received + 1, to: sequence - 1 };
    return { why: `messages ${missing.from} to ${missing.to} are missing`, missing };
  };
  /** The reservation turns into the message's own charge. */
  const charge = (size: number): void => {
    budget.charge(size);
    if (pull.kind === 'none') return;
    const part = Math.min(size, pull.reserved);
    pull.reserved -= part;
    budget.release(part);
  };

  return {
    get open() {
      return pull.kind === 'open';
    },
    get broken() {
      return broken;
    },
    get alive() {
      return alive;
    },
    get chunk() {
      return chunk;
    },
    message({ sequence, delivery, timeMs, data, buffer }: Delivery) {
      if (pull.kind === 'open') pull.ticks = 0;
      if (!current() || broken !== undefined) return;
      const fault = faultOf(sequence, delivery);
      if (fault !== undefined) {
        breakOff(fault);
        return;
      }
      delivered = delivery;
      alive = true;
      progress.received = sequence;
      charge(data.length);
      if (buffer !== undefined) buffers.hold(buffer);
      queue.push({ sequence, timeMs, data, buffer });
      if (pull.kind === 'open' && --pull.left === 0) end();
      else if (queue.size === 1) wake();
    },
    status(subject, code, description) {
      if (pull.kind === 'open') pull.ticks = 0;
      alive = true;
      if (code === 100 || subject !== `${inbox}.${pulls}`) return;
      if (code === 409 && /exceeds maxbytes/i.test(description)) {
        // Not even the first message fitted: the server allows larger ones than it said.
        if (pull.kind === 'open' && pull.left === pullMessages) chunk = Math.min(chunk * 2, maxPullBytes);
      } else if (code !== 404 && code !== 408) {
        broken = { why: `${code} ${description}` };
      }
      end();
    },
    ended: (why) => breakOff({ why }),
    pull(natsSocket, subject) {
      budget.charge(chunk);
      pull = { kind: 'open', left: pullMessages, reserved: chunk, ticks: 0 };
      const request = {
        batch: pullMessages,
        max_bytes: chunk,
        expires: nanos(pullExpiresMs),
        idle_heartbeat: nanos(heartbeatMs),
      };
      natsSocket.publish(subject, JSON.stringify(request), `${inbox}.${++pulls}`);
    },
    tick() {
      if (pull.kind === 'open' && ++pull.ticks > silentTicks) breakOff({ why: 'no sign of life' });
    },
    end,
  };
}
