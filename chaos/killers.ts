/**
 * Killers: one for each process, with the pace of its role, and one for the nodes of a cluster. A process that was started with a
 * failpoint lives until it passes it, and one that freezes itself goes on when another one has its shards.
 */
import type { Failpoint } from '../lib/failpoint.js';
import { integer, pick } from '../lib/testing/batches.js';
import { isFrozen } from '../lib/testing/freeze.js';
import { type Campaign, type Range, sum } from './campaign.js';
import { disturb } from './disturbers.js';
import { echo, isChosen, poisonAll, type Scene } from './faults.js';
import type { ProcessSlot, Role } from './slot.js';
import type { Stack } from './stack.js';

/** How long a process lives after it is ready, ms. */
const lives: Readonly<Record<Role, Range>> = {
  client: [4_000, 10_000],
  gateway: [2_000, 6_000],
  worker: [2_000, 6_000],
  clickhouse: [4_000, 9_000],
  nats: [4_000, 9_000],
};
/** Most of the kills that may be of clients. */
const clientShare = 0.25;
/** A failpoint that is not passed within this time of being ready is given up, and the process is killed. */
const armedMs = 20_000;
/** How long a process that froze itself stands still: longer than a worker's lease of 3 s. */
const frozenMs: Range = [3_500, 8_000];

/** This one is passed when nothing new comes. */
const carrying: Failpoint = 'loader.after-carry';
/** These are passed when something cannot be stored. */
const byPoison: ReadonlySet<string> = new Set<Failpoint>(['loader.before-dead-letter', 'loader.after-dead-letter']);
/** These are passed by a gateway that is asked to end. */
const byTerm: ReadonlySet<string> = new Set<Failpoint>(['gateway.draining', 'gateway.drained']);

/** Kills the processes of a slot, one after the other. */
export async function killEach(campaign: Campaign, slot: ProcessSlot, scene: Scene): Promise<void> {
  const { over } = campaign;
  while (!over.aborted) {
    await served(campaign, slot, scene);
    if (over.aborted) return;
    const { pid, failpoint } = slot;
    const freezes = failpoint?.endsWith(':freeze') === true;
    const name = failpoint?.split('@')[0];
    if (name !== undefined && !freezes) await passed(campaign, slot, scene, name);
    else {
      await campaign.wait(lives[slot.role]);
      if (slot.role === 'client') await clientsTurn(campaign);
      else await campaign.room();
    }
    if (over.aborted) return;
    // Also one that has outlived its failpoint, or that was started without one: the next start arms one.
    if (slot.pid === pid) slot.kill();
    await campaign.sleep(20);
  }
}

/** Kills the nodes of a cluster, one at a time: the next one when all are there again. */
export async function killNodes(campaign: Campaign, stack: Stack): Promise<void> {
  const { over, random } = campaign;
  while (!over.aborted) {
    await stack.logHealthy(over);
    await campaign.wait(lives.nats);
    const standing = stack.slotsOf('nats').filter(({ ready, paused }) => ready && !paused);
    if (!over.aborted && standing.length > 0) pick(random, standing).kill();
    await campaign.sleep(20);
  }
}

/** Resolves when a process of the slot serves, or all is over. One that freezes, before it serves or later, goes on first. */
async function served(campaign: Campaign, slot: ProcessSlot, scene: Scene): Promise<void> {
  let seen: number | undefined;
  for (;;) {
    if (slot.pid !== seen && slot.failpoint?.endsWith(':freeze')) {
      seen = slot.pid;
      await thaw(campaign, scene, slot, slot.failpoint.split('@')[0] as string);
    }
    if (slot.ready || campaign.over.aborted) return;
    await Promise.race([slot.whenReady(), campaign.sleep(100)]);
  }
}

/** Brings about that a process passes its failpoint. Resolves when it has died there, or has had the time to. */
async function passed(campaign: Campaign, slot: ProcessSlot, scene: Scene, failpoint: string): Promise<void> {
  const { pid } = slot;
  if (byTerm.has(failpoint)) {
    await campaign.wait([500, 2_000]);
    if (slot.pid === pid) slot.term();
  } else if (failpoint === carrying && !campaign.busy.has(echo.target)) await disturb(campaign, scene, echo);
  else if (byPoison.has(failpoint)) await disturb(campaign, scene, poisonAll);
  const until = Date.now() + armedMs;
  while (slot.pid === pid && Date.now() < until && !campaign.over.aborted) await campaign.sleep(50);
}

/** Clients wait for no recovery, and would be most of the dead. */
async function clientsTurn(campaign: Campaign): Promise<void> {
  const { over, killsByRole, only } = campaign;
  const alone = !['gateway', 'worker', 'clickhouse', 'nats'].some((role) => isChosen(`kill:${role}`, only));
  const tooMany = (): boolean => (killsByRole.get('client') ?? 0) > clientShare * sum(killsByRole) + 3;
  while (!over.aborted && !alone && tooMany()) await campaign.sleep(100);
}

/** Waits until a process has frozen itself, and lets it go on when another one has its shards. */
async function thaw(campaign: Campaign, { stack }: Scene, slot: ProcessSlot, name: string): Promise<void> {
  const { over, random } = campaign;
  const { pid } = slot;
  const until = Date.now() + armedMs;
  while (slot.pid === pid && Date.now() < until && !over.aborted && !isFrozen(pid)) await campaign.sleep(50);
  if (slot.pid !== pid) return;
  if (isFrozen(pid)) {
    slot.pause();
    campaign.count(`freeze:${name}`);
    campaign.measure(`freeze:${name}`, slot.role, undefined);
    const since = Date.now();
    const alone = !stack.slotsOf(slot.role).some((other) => other !== slot && other.ready && !other.paused);
    await campaign.sleep(alone ? 500 : integer(random, ...frozenMs));
    if (slot.pid === pid) slot.resume();
    campaign.say(`freeze:${name} ${slot.name}, ${Date.now() - since} ms`);
    await campaign.wait([1_000, 3_000]);
  }
  // After the faults have ended no fault thaws a process, so it must not freeze.
  if (over.aborted && slot.pid === pid) slot.kill();
}
