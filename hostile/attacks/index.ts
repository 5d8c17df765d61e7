/**
 * Every attack, in the order of the table.
 *
 *   calls.ts         calls whose answers are not taken, and calls that are refused
 *   bodies.ts        bodies that never end, come slowly or are cut off
 *   streams.ts       many streams, and streams whose answers no client reads
 *   json.ts          JSON and gzip that grow when they are read
 *   services.ts      health watches, reflection, probes, keys that are guessed
 *   connections.ts   connections: many, idle, half open, cut and opened again
 *   frames.ts        HTTP/2 frames without effect, by the million
 *   http1.ts         HTTP/1.1: pipelines, chunks, upgrades, heads without end
 *   together.ts      several at once; peers.ts: many connections of one attacker
 */
import type { Attack } from '../attack.js';
import { bodies } from './bodies.js';
import { calls } from './calls.js';
import { connections } from './connections.js';
import { frames } from './frames.js';
import { http1 } from './http1.js';
import { json } from './json.js';
import { services } from './services.js';
import { streams } from './streams.js';
import { partsOf, together } from './together.js';

export const attacks: readonly Attack[] = [
  ...calls,
  ...json,
  ...bodies,
  ...streams,
  ...services,
  ...connections,
  ...frames,
  ...http1,
];

/** @throws Error when there is none of this name */
export function attackNamed(name: string): Attack {
  const parts = partsOf(name).map((part) => {
    const found = attacks.find((attack) => attack.name === part);
    if (found === undefined) throw new Error(`there is no attack "${part}"`);
    return found;
  });
  return parts.length === 1 ? parts[0]! : together(parts);
}
