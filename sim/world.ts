/** What everything simulated stands on: time, dice, and the record of what happened. */
import { integer, type Random } from '../lib/testing/batches.js';
import { createTimeline, type Timeline } from './timeline.js';

/** Takes down what happened, and when, in ms since 1970. */
export type Scribe = (ms: number, who: string, what: string) => void;

export interface World {
  readonly time: Timeline;
  readonly random: Random;
  /** When it began, ms since 1970. */
  readonly startMs: number;
  /** Writes down what happened. Undefined when it is not read, so that the words are not even made: `trace?.(…)`. */
  readonly trace: ((who: string, what: string) => void) | undefined;
  /** Something goes wrong with this chance; never once the world is calm. */
  chance(probability: number): boolean;
  /** Faults are over: the liveness phase. */
  calm: boolean;
  /** Ms that a message, a call or a write takes: mostly short, now and then long. */
  delay(): number;
}

export function createWorld(random: Random, startMs: number, scribe: Scribe | undefined): World {
  const time = createTimeline();
  const world: World = {
    time,
    random,
    startMs,
    trace: scribe && ((who, what) => scribe(startMs + time.now, who, what)),
    calm: false,
    chance: (probability) => !world.calm && random() < probability,
    delay: () => (world.chance(0.03) ? integer(random, 20, 3_000) : 0.2 + random() * 2),
  };
  return world;
}

/** Lets every promise run that follows from what has happened, and nothing else. */
export const settleDown = (): Promise<void> => new Promise((resolve) => process.nextTick(resolve));
