/**
 * The senders of a plan: a generator and a way of sending for each group, all on one clock. Knows nothing of sockets.
 */
import { createRandom } from '../../lib/testing/batches.js';
import { createGenerator } from '../generator.js';
import { createPhasedLoop } from '../pace.js';
import { prepare } from '../payload.js';
import type { Sender, SenderEvents } from '../sender.js';
import type { Group, Plan } from './plan.js';
import { createTally, type Tally } from './tally.js';

export interface SendersOptions {
  readonly plan: Plan;
  readonly seed: number;
  /** 32 bits that no other run on the same gateway has, nor any of the numbers after it. */
  readonly run: number;
  /** Ms since the start of the plan. */
  readonly now: () => number;
  /** Opens a group's way of sending. */
  readonly open: (group: Group, events: SenderEvents) => Sender;
  /** An outcome has come, or there is room again: `tick` may have something to send. */
  readonly wake: () => void;
}

export interface Senders {
  readonly tally: Tally;
  /** Sends what is due. @returns ms until it should be called again */
  tick(): number;
  /** Calls whose time has come, and which could not leave yet. */
  readonly overdue: number;
  /** Nothing waits for an answer, and nothing is overdue. */
  readonly idle: boolean;
  /** Set when the run cannot go on. */
  readonly error: Error | undefined;
  /** Counts what is overdue as calls without an answer. */
  giveUp(): void;
  close(): Promise<void>;
}

/** Different messages of each group, which its clients copy in turn. */
const messagesPerGroup = 40;

export function createSenders(options: SendersOptions): Senders {
  const { plan, now } = options;
  const tally = createTally(plan);
  const random = createRandom(options.seed);
  const groups = plan.groups.map((group, g) => {
    const { customer, clients, batch: events, calls } = group;
    const target = calls === 'connect' ? 'connect' : 'gateway';
    const seed = (options.seed * 100 + g) * 1_000;
    const messages = Array.from({ length: Math.min(messagesPerGroup, clients) }, (_, i) =>
      prepare({ target, events, seed: seed + i, tenant: '' }),
    );
    const generator = createGenerator({
      messages,
      inFlight: clients,
      run: options.run + g,
      now,
      watch: {
        sent: ({ intended }) => tally.due(customer, intended),
        outcome: ({ message, intended }, outcome, at) => {
          if (outcome.kind === 'accepted') tally.accepted(customer, intended, at, message, outcome.accepted);
          else tally.failed(customer, intended, outcome.reason);
          if (outcome.kind === 'refused') tally.givenUp();
        },
      },
    });
    const phases = plan.phases.map(({ seconds }, i) => ({ seconds, perSecond: group.rates[i] ?? 0 }));
    const pace = createPhasedLoop(phases, 0, random());
    generator.pace(pace);
    const sender = options.open(group, {
      outcome: (...outcome) => {
        generator.events.outcome(...outcome);
        options.wake();
      },
      writable: options.wake,
      failed: (error) => {
        generator.events.failed(error);
        options.wake();
      },
    });
    generator.attach(sender);
    return { customer, generator, pace, sender };
  });
  const overdue = (): number => groups.reduce((sum, { pace }) => sum + pace.due(now()), 0);
  return {
    tally,
    tick: () => Math.min(...groups.map(({ generator }) => generator.tick())),
    get overdue() {
      return overdue();
    },
    get idle() {
      return overdue() === 0 && groups.every(({ generator }) => generator.inFlight === 0);
    },
    get error() {
      const rejected = groups.reduce((sum, { generator }) => sum + generator.total.rejected, 0);
      if (rejected > 0) return new Error(`the gateway found ${rejected} of our events invalid`);
      return groups.find(({ generator }) => generator.error !== undefined)?.generator.error;
    },
    giveUp() {
      for (const { customer, pace } of groups) {
        for (let left = pace.due(now()); left > 0; left--) tally.due(customer, pace.take(now()));
      }
    },
    close: async () => {
      await Promise.all(groups.map(({ sender }) => sender.close()));
    },
  };
}
