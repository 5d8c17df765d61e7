/**
 * Virtual clients by the thousand: each with its own schedule, key and batch, and one call in flight at most. Knows nothing of
 * sockets; the clock is the caller's.
 *
 * A client whose call fails sends the same batch again, as an SDK does, until it is accepted; its next calls wait meanwhile and keep
 * their intended times. A client costs its copy of a batch and about 300 bytes.
 */
import { createRandom, type Random } from '../../lib/testing/batches.js';
import { copyOf, type Prepared, patch, patchAttempt } from '../payload.js';
import type { Outcome, SenderEvents, Slot as Sent } from '../sender.js';
import { createDueQueue } from './due.js';
import { prepareMessages } from './mix.js';
import { type Arrivals, arrivals, type Group, type Plan } from './plan.js';
import { createTally, type Tally } from './tally.js';

/** A client, as a way of sending sees it: what is in flight is in the fields of `Sent`. */
export interface Client extends Sent {
  readonly group: Group;
}

/** Sends for clients. */
export interface Caller {
  /** Sends the client's message, or says false when there is no connection for it now: `writable` comes later. */
  send(client: Client): boolean;
}

export interface CrowdOptions {
  readonly plan: Plan;
  readonly seed: number;
  /** 32 bits that no other run on the same gateway has. */
  readonly run: number;
  /** Ms since the start of the plan. */
  readonly now: () => number;
  /** Ms since 1970. @default Date.now */
  readonly wallClock?: () => number;
}

export interface Crowd {
  readonly clients: readonly Client[];
  readonly events: SenderEvents;
  readonly tally: Tally;
  /** Gives the sender, which needs `events` to be made. */
  attach(caller: Caller): void;
  /** Sends what is due. @returns ms until it should be called again */
  tick(): number;
  /** Every call of the plan has its answer. */
  readonly done: boolean;
  /** Set when the run cannot go on. */
  readonly error: Error | undefined;
}

/** Different messages of each group, which its clients copy in turn. */
const messagesPerGroup = 40;
/** Never sleep longer than this. */
const longestTickMs = 20;
/** At most 16 bits of a batch_id name the client. */
export const maxClients = 65_536;

export function createCrowd(options: CrowdOptions): Crowd {
  const { plan, now } = options;
  const wallClock = options.wallClock ?? Date.now;
  const clients: Client[] = [];
  const schedules: Arrivals[] = [];
  const random: Random = createRandom(options.seed);
  for (const [g, group] of plan.groups.entries()) {
    const count = Math.min(messagesPerGroup, group.clients);
    const messages = prepareMessages({ count, events: group.batch, mix: group.mix, seed: options.seed * 100 + g });
    for (let i = 0; i < group.clients; i++) {
      const message: Prepared = copyOf(messages[i % count]!);
      schedules.push(arrivals(plan, group, i, random));
      clients.push({ index: clients.length, message, group, number: 0, attempt: 0, intended: 0 });
    }
  }
  if (clients.length > maxClients) throw new Error(`a crowd has at most ${maxClients} clients`);

  const tally = createTally(plan);
  const queue = createDueQueue();
  /** Due, and without a connection. */
  let parked: Client[] = [];
  let caller: Caller | undefined;
  let sent = 0;
  let busy = 0;
  let error: Error | undefined;

  const schedule = (client: Client): void => {
    const at = schedules[client.index]!();
    client.attempt = 0;
    client.intended = at;
    if (Number.isFinite(at)) queue.push(at, client.index);
  };
  for (const client of clients) schedule(client);

  const send = (client: Client): void => {
    if (client.attempt === 0) {
      // A new batch: its name and ids are fixed here, and stay for every retry.
      client.number = sent++ >>> 0;
      client.attempt = 1;
      patch(client.message, { run: options.run, slot: client.index, number: client.number }, wallClock());
      tally.due(client.group.customer, client.intended);
      busy++;
    }
    if (caller?.send(client) !== true) parked.push(client);
  };

  const outcome = (index: number, number: number, result: Outcome): void => {
    const client = clients[index];
    if (client === undefined || client.number !== number || client.attempt === 0) {
      error ??= new Error('an outcome for a batch that is not in flight');
      return;
    }
    const { customer } = client.group;
    switch (result.kind) {
      case 'accepted':
        if (result.rejected > 0) error ??= new Error(`the gateway found ${result.rejected} of our events invalid`);
        tally.accepted(customer, client.intended, now(), client.message, result.accepted);
        busy--;
        schedule(client);
        break;
      case 'retry':
        tally.failed(customer, client.intended, result.reason);
        client.attempt++;
        patchAttempt(client.message, client.attempt, wallClock());
        queue.push(now() + result.afterMs, index);
        break;
      case 'refused':
        tally.failed(customer, client.intended, result.reason);
        tally.givenUp();
        busy--;
        schedule(client);
        break;
      default: {
        const never: never = result;
        throw new Error(`unknown outcome ${String(never)}`);
      }
    }
  };

  return {
    clients,
    tally,
    events: {
      outcome,
      writable: () => {
        const again = parked;
        parked = [];
        for (const client of again) send(client);
      },
      failed: (reason) => {
        error ??= reason;
      },
    },
    attach: (given) => {
      caller = given;
    },
    tick() {
      const at = now();
      while (queue.first <= at) send(clients[queue.pop()]!);
      return Math.min(longestTickMs, queue.first - now());
    },
    get done() {
      return busy === 0 && queue.size === 0;
    },
    get error() {
      return error;
    },
  };
}
