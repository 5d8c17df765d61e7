/**
 * Every attack, in the order of the table.
 *
 *   calls.ts         calls whose answers are not taken, and calls that are refused
 *   bodies.ts        bodies that never end, come slowly or are cut off
 *   streams.ts       many streams, and streams whose answers nobody reads
 *   json.ts          JSON and gzip that grow when they are read
 *   services.ts      health watches, reflection, probes, keys that are guessed
 *   connections.ts   connections: many, idle, half open, cut and opened again
 *   frames.ts        HTTP/2 frames without effect, by the million
 *   http1.ts         HTTP/1.1: pipelines, chunks, upgrades, heads without end
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
