/**
 * The customers of a run: client processes that come and go, and what each process knew. The first one counts its batches from 1 in
 * each process, so that its batch ids are used again for other events.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { integer, pick, type Random } from '../lib/testing/batches.js';
import type { Durability } from '../sdk-gen/typescript/src/delivery.js';
import type { ClientMessage, ClientTask } from './client-process.js';
import { proberSource } from './prober.js';
import { type Death, type ProcessSlot, startSlot } from './slot.js';
import type { Stack } from './stack.js';

export interface CustomersOptions {
  readonly stack: Stack;
  readonly count: number;
  /** Events per second of all together. */
  readonly rate: number;
  readonly durability: Durability;
  readonly random: Random;
  readonly onDeath: (death: Death) => void;
  /** An acknowledgement came to this process, the first since it was started. */
  readonly onFirstAck: (slot: ProcessSlot, at: number) => void;
}

export interface Customers {
  readonly slots: readonly ProcessSlot[];
  /** Every process that there was. */
  readonly sources: readonly { readonly source: number; readonly journal: string }[];
  /** Events acknowledged so far, as far as clients heard. */
  readonly acked: number;
  /** Earlier processes whose unknown batches are being sent again. */
  readonly leftovers: number;
  /** They take no more events, deliver what they have, and end. @returns events that were given up */
  close(): Promise<number>;
}

/** A device that is never switched on again: what it had not heard of stays unknown. */
const abandonedShare = 0.2;
const batchSizes = [1, 5, 30, 100, 400];
const closeWithinMs = 70_000;

export function startCustomers(options: CustomersOptions): Customers {
  const { stack, count, random } = options;
  const sources: { source: number; journal: string }[] = [];
  let next = proberSource + 1;
  let acked = 0;
  let undelivered = 0;

  const customers = Array.from({ length: count }, (_, index) => {
    let current: { source: number; journal: string } | undefined;
    let leftovers: { source: number; journal: string }[] = [];
    let heard = false;
    let isUp = (): void => {};
    const slot = startSlot({
      name: `client-${index + 1}`,
      role: 'client',
      cwd: stack.build,
      env: stack.env,
      logFile: join(stack.folder, 'logs', `client-${index + 1}.log`),
      onDeath: options.onDeath,
      launch() {
        if (current !== undefined && random() >= abandonedShare) leftovers.push(current);
        const source = next++;
        current = { source, journal: join(stack.folder, `journal-${source}`) };
        writeFileSync(current.journal, '');
        sources.push(current);
        heard = false;
        const task: ClientTask = {
          ...current,
          counter: index === 0 ? { prefix: 'counter', firstAttempt: pick(random, [0, 1, 2] as const) } : undefined,
          baseUrl: stack.front,
          key: stack.key,
          rate: options.rate / count,
          leftovers,
          client: {
            durability: options.durability,
            // From single events to more than one message's worth (16 KiB are written to the log alone). What three nodes on
            // one machine take of batches of one event is less than a customer sends.
            batchEvents: pick(random, stack.replicated ? batchSizes.slice(1) : batchSizes),
            lingerMs: integer(random, 5, 60),
            ackTimeoutMs: 6_000,
            connectTimeoutMs: 3_000,
            retryCapMs: 500,
          },
        };
        return { args: ['chaos/client-process.js', JSON.stringify(task)] };
      },
      // It serves when it got an acknowledgement.
      probe: (life) =>
        new Promise((resolve, reject) => {
          isUp = resolve;
          life.addEventListener('abort', () => reject(life.reason), { once: true });
        }),
      onMessage(message) {
        const told = message as ClientMessage;
        if (told.kind === 'acked') {
          acked += told.events;
          if (heard) return;
          heard = true;
          isUp();
          options.onFirstAck(slot, told.at);
        } else if (told.kind === 'resent') {
          leftovers = leftovers.filter(({ source }) => source !== told.source);
        } else if (told.kind === 'closed') undelivered += told.undelivered;
      },
    });
    return { slot, left: () => leftovers.length };
  });
  return {
    slots: customers.map(({ slot }) => slot),
    sources,
    get acked() {
      return acked;
    },
    get leftovers() {
      return customers.reduce((sum, { left }) => sum + left(), 0);
    },
    async close() {
      await Promise.all(customers.map(({ slot }) => slot.close(closeWithinMs)));
      return undelivered;
    },
  };
}
