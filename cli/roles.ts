/**
 * How the processes of Sluice are started: which file, with which arguments to Node. Sources run through tsx, and what `npm run build` made
 * runs as it is.
 */
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { environmentOf, nodeFlags } from '../lib/config/index.js';

/** The root of the project, or of what is built: its package.json tells the version. */
export const root = fileURLToPath(new URL('..', import.meta.url));

/** `.ts` in the sources, `.js` in what is built. */
const extension = extname(import.meta.url);

/** Whether this is what `npm run build` made, which has the roles and the commands of an installation. */
export const isBuilt = extension === '.js';

/** Path of the program of all commands. That of the sources also installs packages. */
export const commandFile = fileURLToPath(new URL(isBuilt ? './sluice.js' : './sluice.mjs', import.meta.url));

/** By file, from {@link root} and without extension. */
const entries = {
  gateway: 'gateway/main',
  worker: 'workers/main',
  clickhouse: 'workers/embedded/main',
  erase: 'workers/ledger/erase-main',
  audit: 'workers/ledger/audit-main',
  where: 'workers/ledger/where-main',
  shards: 'workers/ledger/shards-main',
  demo: 'cli/demo/main',
  bench: 'bench/main',
  chaos: 'chaos/main',
  interop: 'interop/main',
  hostile: 'hostile/main',
  test: 'cli/test',
  'test-long': 'cli/test-long',
  'test-versions': 'cli/test-versions',
} as const;

export type Entry = keyof typeof entries;

/** Roles that stay up are observed; commands that end are not. */
const stays = (entry: Entry): entry is keyof typeof nodeFlags => entry in nodeFlags;

const urlOf = (file: string): URL => new URL(`../${file}${extension}`, import.meta.url);

/** Arguments to `node`, to be run in any folder. */
export const nodeArguments = (entry: Entry, flags: readonly string[]): string[] => [
  ...(stays(entry) ? nodeFlags[entry] : []),
  ...(isBuilt ? [] : ['--import', import.meta.resolve('tsx')]),
  '--import',
  urlOf(stays(entry) ? 'lib/telemetry/start' : 'lib/closed-pipes').href,
  fileURLToPath(urlOf(entries[entry])),
  ...flags,
];

/** The environment for it; undefined: that of this process. */
export const nodeEnvironment = (entry: Entry): NodeJS.ProcessEnv | undefined =>
  stays(entry) ? environmentOf(entry) : undefined;
