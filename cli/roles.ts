/**
 * How the processes of Sluice are started: which file, with which arguments to Node.
 */
import { fileURLToPath } from 'node:url';

/** The root of the project. */
export const root = fileURLToPath(new URL('..', import.meta.url));

const entries = {
  gateway: 'gateway/main.ts',
  worker: 'workers/main.ts',
  clickhouse: 'workers/embedded/main.ts',
  erase: 'workers/erase-main.ts',
  demo: 'cli/demo/main.ts',
  bench: 'bench/main.ts',
  test: 'cli/test.ts',
} as const;

export type Entry = keyof typeof entries;

/** Roles that stay up are observed; commands that end are not. */
const observed: readonly Entry[] = ['gateway', 'worker', 'clickhouse'];

/** Arguments to `node`, to be run in {@link root}. */
export const nodeArguments = (entry: Entry, flags: readonly string[]): string[] => [
  '--import',
  'tsx',
  ...(observed.includes(entry) ? ['--import', './lib/telemetry/start.ts'] : []),
  entries[entry],
  ...flags,
];
