/**
 * Who is hit when: one killer for each process, with the pace of its role, and one disturber for the faults that end by themselves.
 * They know nothing of one another, so faults overlap. Everything random comes from the seed; when things happen depends on the
 * machine as well, so a seed repeats the choice of faults and not the moment.
 *
 *   campaign.ts    what they share; killers.ts and disturbers.ts: they; arming.ts: the failpoints that processes are started with
 */
import { createArming } from './arming.js';
import { type CampaignOptions, createCampaign, increment, sum } from './campaign.js';
import { disturbAtRandom, oneAfterTheOther } from './disturbers.js';
import { disturbances, isChosen, type Scene } from './faults.js';
import { killEach, killNodes } from './killers.js';
import type { Recoveries } from './recovery.js';
import type { Death, Role } from './slot.js';

export interface Schedule {
  /** The failpoint that the next process of this role gets. */
  arm(role: Role): string | undefined;
  died(death: Death): void;
  begin(scene: Omit<Scene, 'random'>, recoveries: Recoveries): void;
  /** No more faults; resolves when all are undone. */
  end(): Promise<void>;
  /** How often each fault happened. */
  readonly counts: ReadonlyMap<string, number>;
  readonly kills: number;
  readonly killsByRole: ReadonlyMap<Role, number>;
  readonly faults: number;
  /** Deaths that no fault caused, a line each. */
  readonly crashes: readonly string[];
  /** Least number of times that one of the chosen failpoints was died at; infinite when none is chosen. */
  readonly minFailpoint: number;
}

export function createSchedule(options: CampaignOptions): Schedule {
  const { random, only, cluster, oneByOne, say } = options;
  const crashes: string[] = [];
  const campaign = createCampaign(options);
  const { counts, killsByRole } = campaign;
  const arming = createArming(campaign);
  const chosen = disturbances.filter(({ name, inCluster }) => isChosen(name, only) && (cluster || inCluster !== true));

  return {
    arm: (role) => arming.arm(role),
    died({ slot, how, failpoint, detail }) {
      if (how === 'ended') return;
      if (how === 'crashed') {
        crashes.push(`${slot.name} ended by itself: ${detail}`);
        say(`${slot.name} ended by itself: ${detail}`);
        return;
      }
      const name = how === 'failpoint' ? `failpoint:${failpoint?.split('@')[0]}` : `kill:${slot.role}`;
      campaign.count(name);
      increment(killsByRole, slot.role);
      say(how === 'failpoint' ? `${slot.name} died at ${failpoint}` : `${name} ${slot.name}`);
      const measured = slot.role === 'gateway' || slot.role === 'client' ? slot : undefined;
      campaign.measure(name, slot.role, measured);
    },
    begin(hands, recoveries) {
      const scene: Scene = { ...hands, random };
      campaign.begin(recoveries);
      if (oneByOne) return campaign.background(oneAfterTheOther(campaign, scene, chosen));
      for (const slot of [...scene.stack.slots, ...scene.clients]) {
        if (cluster && slot.role === 'nats') continue;
        const isHit = isChosen(`kill:${slot.role}`, only) || arming.isArmed(slot.role);
        if (isHit) campaign.background(killEach(campaign, slot, scene));
      }
      if (cluster && isChosen('kill:nats', only)) campaign.background(killNodes(campaign, scene.stack));
      if (chosen.length > 0) campaign.background(disturbAtRandom(campaign, scene, chosen));
    },
    end: () => campaign.end(),
    counts,
    get kills() {
      return sum(killsByRole);
    },
    killsByRole,
    get faults() {
      return sum(counts);
    },
    crashes,
    get minFailpoint() {
      return arming.minFailpoint;
    },
  };
}
