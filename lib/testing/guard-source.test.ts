/**
 * What holds for the source as a whole: it type-checks, it is formatted and linted, and no file imports what it must not.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { allOptions } from '../config/index.js';
import { errorTable } from '../errors.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

function run(command: string, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(join(root, 'node_modules/.bin', command), args, {
    cwd: root,
    encoding: 'utf8',
  });
  return status === 0 ? '' : `${stdout}${stderr}`.slice(-4000) || `${command} ended with ${status}`;
}

test('the types hold', () => {
  assert.is(run('tsc', []), '');
});

test('the source is formatted and linted', () => {
  assert.is(run('biome', ['check', '--error-on-warnings', '.']), '');
});

function* sources(folder: string): Generator<string> {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory() && entry.name !== 'node_modules') yield* sources(path);
    else if (entry.name.endsWith('.ts')) yield path;
  }
}

const rooms = ['lib', 'gateway', 'workers', 'cli', 'bench', 'chaos', 'interop', 'hostile', 'sim', 'sdk-gen'] as const;

/** Room → rooms that its files may import from, besides itself and generated code. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  'sdk-gen': [],
  lib: [],
  gateway: ['lib'],
  workers: ['lib'],
  cli: ['lib', 'sdk-gen'],
  bench: ['lib', 'gateway', 'workers', 'sdk-gen'],
  sim: ['lib', 'gateway', 'workers', 'sdk-gen'],
  chaos: ['lib', 'cli', 'sdk-gen'],
  interop: ['lib', 'cli', 'sdk-gen'],
  hostile: ['lib'],
};

/** What a file imports from this project, as paths from the root without extension. */
function localImports(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  return [
    ...text.matchAll(/(?:^|\s)(?:import|export)\s[^'";]*?from\s+'([^']+)'|import\(\s*'([^']+)'|^import '([^']+)'/gm),
  ]
    .map((match) => match[1] ?? match[2] ?? match[3] ?? '')
    .filter((name) => name.startsWith('.'))
    .map((name) => relative(root, resolve(root, dirname(file), name)).replace(/\.(?:js|ts|mjs)$/, ''));
}

test('rooms import only from the rooms below them, and no file imports a main', () => {
  const wrong: string[] = [];
  let seen = 0;
  for (const room of rooms) {
    for (const file of sources(room)) {
      for (const target of localImports(file)) {
        seen++;
        const [to = ''] = target.split('/');
        const generated = target.startsWith('sdk-gen/typescript/gen/');
        if (to !== room && !generated && mayImport[room]?.includes(to) !== true)
          wrong.push(`${file} imports ${target}`);
        if (/(?:^|\/)(?:[a-z]+-)?main$/.test(target)) wrong.push(`${file} imports ${target}`);
      }
    }
  }
  assert.equal(wrong, []);
  assert.ok(seen > 300, `only ${seen} imports were found: does the pattern still match?`);
});

/** From top to bottom. A file imports from its own floor and those below. `.`: the files of the folder itself that are not named elsewhere. */
const floors: Readonly<Record<string, readonly (readonly string[])[]>> = {
  gateway: [
    ['.'],
    ['api'],
    ['ingest'],
    ['log'],
    ['auth'],
    ['held'],
    ['listener'],
    ['errors'],
    ['metrics.ts', 'tracing.ts', 'clock.ts'],
  ],
  workers: [['.'], ['ledger'], ['loader'], ['clickhouse'], ['reader'], ['embedded']],
};

const ofTests = (file: string): boolean => /(?:^|\/)testing\/|\.test\.ts$/.test(file);

test('a batch goes one way: in gateway/ and workers/ imports point to lower floors', () => {
  const wrong: string[] = [];
  let seen = 0;
  for (const [folder, plan] of Object.entries(floors)) {
    const floorOf = (path: string): number => {
      const [, first = '', second] = path.split('/');
      const named = plan.findIndex((names) => names.includes(second === undefined ? `${first}.ts` : first));
      return named === -1 && second === undefined ? 0 : named;
    };
    for (const file of sources(folder)) {
      if (ofTests(file)) continue;
      const from = floorOf(file.replace(/\.ts$/, ''));
      if (from === -1) wrong.push(`${file} is in a folder without a floor`);
      for (const target of localImports(file)) {
        if (!target.startsWith(`${folder}/`)) continue;
        seen++;
        if (floorOf(target) < from) wrong.push(`${file} imports ${target}`);
      }
    }
  }
  assert.equal(wrong, []);
  assert.ok(seen > 300, `only ${seen} imports were found`);
});

/** Folder → the file whose head has the map of that folder. */
const entryFiles: Readonly<Record<string, string>> = {
  gateway: 'main.ts',
  'gateway/listener': 'server.ts',
  'gateway/held': 'unfinished.ts',
  'gateway/api': 'routes.ts',
  'gateway/api/hot': 'handler.ts',
  'gateway/ingest': 'ingest.ts',
  'gateway/log': 'publisher.ts',
  'gateway/auth': 'key-watch.ts',
  'gateway/errors': 'rpc-errors.ts',
  workers: 'main.ts',
  'workers/reader': 'pull-reader.ts',
  'workers/loader': 'shard.ts',
  'workers/clickhouse': 'client.ts',
  'workers/clickhouse/schema': 'index.ts',
  'workers/ledger': 'audit.ts',
  'workers/embedded': 'main.ts',
  'lib/contract': 'index.ts',
  'lib/contract/json': 'index.ts',
  'lib/config': 'index.ts',
  'lib/telemetry': 'start.ts',
  cli: 'sluice.ts',
  'cli/up': 'index.ts',
  'cli/demo': 'main.ts',
  bench: 'main.ts',
  sim: 'main.ts',
  chaos: 'main.ts',
  interop: 'main.ts',
  hostile: 'main.ts',
};

/** The comment with which a file begins. */
const headOf = (file: string): string => /^\/\*\*[\s\S]*?\*\//.exec(readFileSync(join(root, file), 'utf8'))?.[0] ?? '';

test('the entry file of each folder names all files of the folder in its map, and no file that is gone', () => {
  const wrong: string[] = [];
  for (const [folder, entry] of Object.entries(entryFiles)) {
    const map = headOf(join(folder, entry));
    for (const file of readdirSync(join(root, folder))) {
      if (!file.endsWith('.ts') || file === entry || ofTests(file)) continue;
      if (!new RegExp(`(?<![\\w/-])${file.replaceAll('.', '\\.')}`).test(map))
        wrong.push(`${folder}/${entry} does not name ${file}`);
    }
    const known = [...sources(folder.split('/')[0] ?? folder), ...sources('lib')];
    for (const [name] of map.matchAll(/[\w./-]+\.ts\b/g)) {
      if (known.some((path) => `/${path}`.endsWith(`/${name.replace(/^(?:\.\.\/)+/, '')}`))) continue;
      wrong.push(`${folder}/${entry} names ${name}, which does not exist`);
    }
  }
  assert.equal(wrong, []);
});

test('no file imports itself, by whatever way round', () => {
  const imports = new Map<string, readonly string[]>();
  for (const room of rooms) {
    for (const file of sources(room)) if (!ofTests(file)) imports.set(file.replace(/\.ts$/, ''), localImports(file));
  }
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (file: string, way: readonly string[]): void => {
    const at = way.indexOf(file);
    if (at !== -1) circles.push([...way.slice(at), file].join(' → '));
    if (at !== -1 || done.has(file)) return;
    for (const next of imports.get(file) ?? []) visit(next, [...way, file]);
    done.add(file);
  };
  for (const file of imports.keys()) visit(file, []);
  assert.equal(circles, []);
});

/** The text of all sources that are not tests, but for one file. */
const sourcesBut = (file: string): string =>
  rooms
    .flatMap((room) => [...sources(room)])
    .filter((path) => path !== file && !ofTests(path))
    .map((path) => readFileSync(join(root, path), 'utf8'))
    .join('\n');

test('each error of lib/errors.ts is used, and each setting of lib/config/index.ts is read', () => {
  const errorsUsedIn = sourcesBut('lib/errors.ts');
  const unused = Object.keys(errorTable).filter((name) => !errorsUsedIn.includes(`'${name}'`));
  const settingsReadIn = sourcesBut('lib/config/index.ts');
  const settings = Object.values(allOptions).flatMap((table) => Object.keys(table));
  const unread = settings.filter((name) => !new RegExp(`\\b${name}\\b`).test(settingsReadIn));
  assert.equal({ unused, unread }, { unused: [], unread: [] }, 'nothing throws these errors, or reads these settings');
});

test('the environment is read in lib/config, and by tests', () => {
  const readers = rooms
    .flatMap((room) => [...sources(room)])
    .filter((file) => !file.startsWith('lib/config/') && !/testing\/|\.test\.ts$/.test(file))
    .filter((file) => /process\.env\b/.test(readFileSync(join(root, file), 'utf8')));
  assert.equal(readers, []);
});

test('HTTP/2 streams are closed without an error in gateway/listener/reset-stream.ts alone: elsewhere Node may spin', () => {
  const closers = ['gateway', 'sdk-gen', 'lib', 'bench']
    .flatMap((room) => [...sources(room)])
    .filter((file) => file !== 'gateway/listener/reset-stream.ts' && !/\.test\.ts$/.test(file))
    .filter((file) => {
      const text = readFileSync(join(root, file), 'utf8');
      const closes = /\b(?:stream|this)\.close\((?:\)|[^)]*NO_ERROR|0)/.test(text);
      return text.includes("'node:http2'") && closes;
    });
  assert.equal(closers, []);
});

test('dependencies are pinned exactly, and the lock file names no download addresses', () => {
  const { dependencies, devDependencies, optionalDependencies } = JSON.parse(
    readFileSync(join(root, 'package.json'), 'utf8'),
  );
  const loose = Object.entries({ ...dependencies, ...devDependencies, ...optionalDependencies }).filter(
    ([, version]) => !/^\d+\.\d+\.\d+$/.test(String(version)),
  );
  assert.equal(loose, []);
  assert.not.match(readFileSync(join(root, 'package-lock.json'), 'utf8'), /"resolved":\s*"https?:/);
});

test('the lock file has the packages of every platform: `npm ci` refuses one that has not', () => {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>;
  };
  const missing = Object.values(packages)
    .flatMap(({ optionalDependencies }) => Object.keys(optionalDependencies ?? {}))
    .filter((name) => packages[`node_modules/${name}`] === undefined);
  assert.equal(missing, []);
});

test.run();
