/**
 * What brings about the faults that end by themselves: beside the killers, at random; or one by one with the kills, each when what the
 * one before hit works again.
 */
import { pick } from '../lib/testing/batches.js';
import type { Campaign, Range } from './campaign.js';
import { type Disturbance, isChosen, type Scene } from './faults.js';
import type { ProcessSlot, Role } from './slot.js';

const disturbedEveryMs: Range = [1_000, 6_000];
const maxDisturbances = 3;
/** One by one: between a recovery and the next fault, so that leases and assignments are what they were, ms. */
const calmMs: Range = [1_500, 3_500];

/** Does something to the stack. Resolves when it is undone. */
export async function disturb(campaign: Campaign, scene: Scene, disturbance: Disturbance): Promise<void> {
  const { name, role, target, apply } = disturbance;
  campaign.busy.add(target);
  try {
    const since = Date.now();
    const done = await apply(scene, campaign.over);
    if (done === undefined) return;
    campaign.count(name);
    campaign.say(`${name}${done.slot === undefined ? '' : ` ${done.slot.name}`}, ${Date.now() - since} ms`);
    campaign.measure(name, role, done.slot);
  } finally {
    campaign.busy.delete(target);
  }
}

/** Disturbs the stack now and then, a few times at once at most. */
export async function disturbAtRandom(campaign: Campaign, scene: Scene, chosen: readonly Disturbance[]): Promise<void> {
  const { over, busy, counts, random } = campaign;
  while (!over.aborted) {
    await campaign.wait(disturbedEveryMs);
    await campaign.room();
    if (over.aborted || campaign.running.size > 100 || busy.size >= maxDisturbances) continue;
    const free = chosen.filter(({ target }) => !busy.has(target));
    const least = Math.min(...free.map(({ name }) => counts.get(name) ?? 0));
    const next = free.filter(({ name }) => (counts.get(name) ?? 0) <= least + 1);
    if (next.length > 0) campaign.background(disturb(campaign, scene, pick(random, next)));
  }
}

/** One fault after the other, kills and disturbances, each when what the one before hit works again. */
export async function oneAfterTheOther(
  campaign: Campaign,
  scene: Scene,
  chosen: readonly Disturbance[],
): Promise<void> {
  const { over, counts, random, ended } = campaign;
  const slots = [...scene.stack.slots, ...scene.clients];
  const roles = [...new Set(slots.map(({ role }) => role))].filter((role) => isChosen(`kill:${role}`, campaign.only));
  const all = [...roles.map((role) => ({ name: `kill:${role}`, role })), ...chosen];
  while (!over.aborted) {
    await campaign.wait(calmMs);
    const least = Math.min(...all.map(({ name }) => counts.get(name) ?? 0));
    const rarest = all.filter(({ name }) => (counts.get(name) ?? 0) === least);
    const next = pick(random, rarest);
    if (over.aborted) return;
    if ('apply' in next) await disturb(campaign, scene, next);
    else await killOne(campaign, slots, next.role);
    await Promise.race([campaign.recovered, ended]);
    if (!over.aborted) await Promise.all(slots.map((slot) => Promise.race([slot.whenReady(), ended])));
  }
}

/** Kills a process of this role. Resolves when its death is known. */
async function killOne(campaign: Campaign, slots: readonly ProcessSlot[], role: Role): Promise<void> {
  const ofRole = slots.filter((slot) => slot.role === role);
  const slot = pick(campaign.random, ofRole);
  await slot.whenReady();
  const before = campaign.recovered;
  slot.kill();
  while (campaign.recovered === before && !campaign.over.aborted) await campaign.sleep(10);
}
