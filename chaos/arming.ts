/** Which failpoint the next process of a role is started with: of those that were tried least, one at random. */
import { failpoints } from '../lib/failpoint.js';
import { integer, pick } from '../lib/testing/batches.js';
import { type Campaign, increment, maxOpen } from './campaign.js';
import { freezeNames, isChosen } from './faults.js';
import type { Role } from './slot.js';

export interface Arming {
  /** The failpoint that the next process of this role gets, with its count. */
  arm(role: Role): string | undefined;
  /** A process of this role may be started with a failpoint. */
  isArmed(role: Role): boolean;
  /** Least number of times that one of the chosen failpoints was died at; infinite when none is chosen. */
  readonly minFailpoint: number;
}

/** Share of gateways and workers that are started with a failpoint, where they may also be killed at any other time. */
const armedShare = 0.8;

const roleOf = (failpoint: string): Role => (failpoint.startsWith('gateway.') ? 'gateway' : 'worker');

/** About how often a failpoint is passed in some seconds of a process, so that it dies at any time of its life. */
function passings(name: string): number {
  if (/^gateway\.(?:draining|drained)$|-carry$|-dead-letter$|-purge$|-recover$/.test(name)) return 2;
  return name.startsWith('gateway.') || name === 'loader.half-read' ? 100 : 8;
}

export function createArming(campaign: Campaign): Arming {
  const { random, only, counts } = campaign;
  const chosen = Object.keys(failpoints)
    .map((name) => `failpoint:${name}`)
    .filter((name) => isChosen(name, only));
  const names = [...chosen, ...freezeNames.filter((name) => isChosen(name, only))];
  const namesOf = (role: Role): string[] => names.filter((name) => roleOf(name.slice(name.indexOf(':') + 1)) === role);
  /** Started with it, whether or not it was passed. */
  const armed = new Map<string, number>();
  const tries = (name: string): number => (counts.get(name) ?? 0) + (armed.get(name) ?? 0) / 2;
  return {
    arm(role) {
      const { recoveries } = campaign;
      const own = namesOf(role);
      if (campaign.over.aborted || campaign.oneByOne || recoveries === undefined || own.length === 0) return undefined;
      // One that dies again before it has done anything would keep everything from recovering.
      if (recoveries.open >= 2 * maxOpen) return undefined;
      const mixed = isChosen(`kill:${role}`, only);
      if (mixed && random() >= armedShare) return undefined;
      const least = Math.min(...own.map(tries));
      const rare = own.filter((name) => tries(name) <= least + 1);
      const name = pick(random, rare);
      increment(armed, name);
      const [kind, point] = name.split(':') as [string, string];
      const times = random() < 0.25 ? 1 : integer(random, 1, passings(point));
      return `${point}@${times}${kind === 'freeze' ? ':freeze' : ''}`;
    },
    isArmed: (role) => namesOf(role).length > 0,
    get minFailpoint() {
      return Math.min(...chosen.map((name) => counts.get(name) ?? 0));
    },
  };
}
