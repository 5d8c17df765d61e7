/**
 * One attack against one fresh gateway: the gateway's process as users run it, the bystanders, the attacker, and the figures.
 *
 *   warm-up → alone → attack → after
 */

import { addTenant } from '../lib/tenants.js';
import { type TestNats, withNats } from '../lib/testing/nats.js';
import { type Role, startRole } from '../lib/testing/role-process.js';
import type { Attack, Counts } from './attack.js';
import { type AttackOrder, startAttacker } from './attacker.js';
import { type PhaseSeen, startBystanders } from './bystanders.js';
import { watchProcesses } from './process-watch.js';

export interface SceneOptions {
  /** Settings of the gateway beyond its defaults, as flags. */
  readonly flags: readonly string[];
  readonly processes: number;
  readonly tls: boolean;
  /** Most seconds of the attack. */
  readonly seconds: number;
  /** As {@link AttackOrder} has it. */
  readonly atLeast?: AttackOrder['atLeast'];
  /** Of the attack's counts: above 0, at most 1. */
  readonly scale: number;
  /** How long each phase without an attack takes, s. */
  readonly calm: { readonly warmUp: number; readonly alone: number; readonly after: number };
  readonly say: (line: string) => void;
}

export interface Figures {
  readonly counts: Counts;
  /** Seconds that the attack took. */
  readonly seconds: number;
  /** MiB of the largest process of the gateway: before, at most, and at the end. */
  readonly rss: { readonly before: number; readonly most: number; readonly after: number };
  /** Longest delay of an event loop, ms. */
  readonly loopMs: number;
  /** CPU seconds of all processes of the gateway during the attack. */
  readonly cpuSeconds: number;
  readonly alone: PhaseSeen;
  readonly during: PhaseSeen;
  readonly after: PhaseSeen;
  /** Why the gateway's process ended; undefined: it lives. */
  readonly died: string | undefined;
}

/** Where attacks run: a nats-server, and a folder for what the gateway logs. */
export interface Ground {
  readonly nats: TestNats;
  readonly folder: string;
  /** Flags for TLS; none where the gateway serves without. */
  readonly tlsFlags: readonly string[];
  /** Keys of tenants that attack, as many as any attack needs. */
  readonly keys: readonly string[];
  readonly goodKey: string;
  readonly otherKey: string;
}

const attackerAddress = '127.0.0.9';
const pause = (seconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, seconds * 1_000));

/** Runs `use` with a nats-server and keys for `tenants` attackers. */
export async function withGround<T>(
  options: { readonly folder: string; readonly tenants: number; readonly tlsFlags: readonly string[] },
  use: (ground: Ground) => Promise<T>,
): Promise<T> {
  return withNats(async (nats) => {
    const keyOf = async (tenant: string): Promise<string> => (await addTenant(nats.nc, { tenant })).key;
    const keys: string[] = [];
    for (let i = 0; i < options.tenants; i++) keys.push(await keyOf(`attacker-${i}`));
    const [goodKey, otherKey] = [await keyOf('good'), await keyOf('other')];
    return use({ nats, folder: options.folder, tlsFlags: options.tlsFlags, keys, goodKey, otherKey });
  });
}

/** @throws Error when the gateway does not start, or the attack's script fails */
export async function playScene(attack: Attack, ground: Ground, options: SceneOptions): Promise<Figures> {
  const gateway = await startRole('gateway', 0, {
    folder: ground.folder,
    telemetry: true,
    flags: [
      ...['--nats-url', ground.nats.url, '--port', '0', '--metrics-port', '0', '--log-level', 'warn'],
      ...['--processes', String(options.processes)],
      ...ground.tlsFlags,
      ...(attack.settings ?? []),
      ...options.flags,
    ],
  });
  let died: string | undefined;
  gateway.failure.catch((error: Error) => {
    died = error.message;
  });
  try {
    return { ...(await measure(attack, gateway, ground, options)), died };
  } finally {
    await gateway.close();
  }
}

async function measure(
  attack: Attack,
  gateway: Role,
  ground: Ground,
  { tls, seconds, atLeast, scale, calm, say }: SceneOptions,
): Promise<Omit<Figures, 'died'>> {
  const { port } = gateway;
  const watch = watchProcesses(gateway);
  const keys = ground.keys.slice(0, attack.keys ?? 0);
  const target = { port, tls, from: attackerAddress };
  const order = { attack: attack.name, target, keys, seconds, scale, ...(atLeast === undefined ? {} : { atLeast }) };
  const [bystanders, attacker] = await Promise.all([
    startBystanders({ port, tls, goodKey: ground.goodKey, otherKey: ground.otherKey }),
    startAttacker(order),
  ]);
  try {
    await pause(calm.warmUp);
    await bystanders.next('alone');
    await pause(calm.alone);
    await watch.reset();
    const before = watch.rss();
    const cpuBefore = watch.cpu();
    const alone = bystanders.next('attack');
    say(`${attack.name}: attacking …`);
    const since = performance.now();
    const counts = await attacker.go();
    const took = (performance.now() - since) / 1_000;
    const cpuSeconds = watch.cpu() - cpuBefore;
    const during = bystanders.next('after');
    await pause(calm.after);
    const [aloneSeen, duringSeen, after] = [await alone, await during, await bystanders.next(undefined)];
    const loopMs = await watch.loopDelay();
    const rss = { before, most: watch.peakRss(), after: watch.rss() };
    return { counts, seconds: took, rss, loopMs, cpuSeconds, alone: aloneSeen, during: duringSeen, after };
  } finally {
    attacker.close();
    bystanders.close();
    watch.close();
  }
}
