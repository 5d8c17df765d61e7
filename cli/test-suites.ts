/**
 * Which test files there are, and which run when. A file's name says it:
 *
 *   x.test.ts       unit test: starts no server
 *   guard-x.test.ts  reads the sources, and runs compilers over them
 *   x.it.test.ts    starts servers
 *   x.long.test.ts  proves something rare, or takes minutes
 */
import { readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import { root } from './roles.js';

/** unit: `npm run test:unit`; change: `npm test`, which has the unit tests too; long: a part of `npm run test:long`. */
export type Suite = 'unit' | 'change' | 'long';

const belongs: Readonly<Record<Suite, (file: string) => boolean>> = {
  unit: (file) => !/\.(?:it|long)\.test\.ts$|\/guard-[^/]*$/.test(file),
  change: (file) => !file.endsWith('.long.test.ts'),
  long: (file) => file.endsWith('.long.test.ts'),
};

/** Files at a time, for two cores: many of them wait for servers, and use no processor then. */
export const filesAtATime: Readonly<Record<Suite, number>> = { unit: 3, change: 5, long: 2 };

/** Of one file. */
export const limitMs: Readonly<Record<Suite, number>> = { unit: 120_000, change: 240_000, long: 900_000 };

/** They load the machine so much that others beside them would be measured, not tested. */
const alone: readonly string[] = ['gate.long', 'chaos.long', 'control.long'];

/** Parts of names, longest first, so that the end is not one long file on one core. */
const longFirst: readonly string[] = [
  'simulator.long',
  'lost-log.long',
  'up/up.it',
  'secrets.it',
  'installation.it',
  'load.it',
  'demo.it',
  'stalls.it',
  'lost-log',
  'nats-users',
  'sluice.it',
  'embedded/http.it',
  'publish-stream',
  'cli/shards.it',
  'unfinished.it',
  'processes.it',
  'scanner-fuzz',
  '.it.',
];

const rank = (file: string): number => {
  const at = longFirst.findIndex((part) => file.includes(part));
  return at < 0 ? longFirst.length : at;
};

function* testFiles(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (entry.name !== 'node_modules' && entry.name !== 'dist' && !entry.name.startsWith('.')) yield* testFiles(path);
    } else if (entry.name.endsWith('.test.ts')) {
      yield relative(root, path);
    }
  }
}

/**
 * Files of a suite whose path has one of the words, or all of them: those that run beside others, in the order in which they start, and
 * those that run alone after them.
 */
export function filesOf(suite: Suite, words: readonly string[]): { together: string[]; alone: string[] } {
  const files = [...testFiles(root)]
    .filter((file) => belongs[suite](file) && (words.length === 0 || words.some((word) => file.includes(word))))
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  const isAlone = (file: string): boolean => alone.some((part) => file.includes(part));
  return { together: files.filter((file) => !isAlone(file)), alone: files.filter(isAlone) };
}
