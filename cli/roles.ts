/**
 * How the processes of Sluice are started: which file, with which arguments to Node.
 */
import { fileURLToPath } from 'node:url';
import { nodeFlags } from '../lib/config/index.js';

/** The root of the project. */
export const root = fileURLToPath(new URL('..', import.meta.url));

const entries = {
  gateway: 'gateway/main.ts',
  worker: 'workers/main.ts',
  clickhouse: 'workers/embedded/main.ts',
  erase: 'workers/ledger/erase-main.ts',
  audit: 'workers/ledger/audit-main.ts',
  where: 'workers/ledger/where-main.ts',
  shards: 'workers/ledger/shards-main.ts',
  demo: 'cli/demo/main.ts',
  bench: 'bench/main.ts',
  chaos: 'chaos/main.ts',
  interop: 'interop/main.ts',
  hostile: 'hostile/main.ts',
  test: 'cli/test.ts',
  'test-long': 'cli/test-long.ts',
  'test-versions': 'cli/test-versions.ts',
} as const;

export type Entry = keyof typeof entries;

/** Roles that stay up are observed; commands that end are not. */
const stays = (entry: Entry): entry is keyof typeof nodeFlags => entry in nodeFlags;

/** Arguments to `node`, to be run in {@link root}. */
export const nodeArguments = (entry: Entry, flags: readonly string[]): string[] => [
  ...(stays(entry) ? nodeFlags[entry] : []),
  '--import',
  'tsx',
  '--import',
  stays(entry) ? './lib/telemetry/start.ts' : './lib/closed-pipes.ts',
  entries[entry],
  ...flags,
];
