/**
 * The project and its tests as plain JavaScript, for one run of the tests. Starting through tsx takes three times the processor: a small
 * test file 0.69 instead of 0.23 CPU-seconds, a gateway 1.1 instead of 0.45. Compiling everything takes 2.4.
 *
 * `import.meta.url` stays that of the source, so that tests find the files of the checkout beside them. Only the modules that say how
 * programs are started see where they run from: what is compiled starts what is compiled.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from './roles.js';
import { isAlive } from './stack-file.js';

/** They start programs. */
const awareOfBuild: readonly string[] = ['cli/roles.js', 'lib/testing/program.js'];

export interface TestBuild {
  /** Of the compiled files, each at its path in the project. */
  readonly folder: string;
  remove(): void;
}

/** The settings of the compiler: those of the project, without checks, which `tsc` and the guards make. */
function settingsFor(folder: string): string {
  const { include, exclude } = JSON.parse(readFileSync(join(root, 'tsconfig.json'), 'utf8')) as {
    include: string[];
    exclude: string[];
  };
  const absolute = (path: string): string => join(root, path);
  return JSON.stringify({
    extends: absolute('tsconfig.json'),
    compilerOptions: {
      ...{ noEmit: false, noCheck: true, sourceMap: true },
      ...{ outDir: folder, rootDir: root, typeRoots: [absolute('node_modules/@types')] },
    },
    include: include.map(absolute),
    exclude: exclude.map(absolute),
  });
}

/** Gives the modules of a folder the addresses of their sources. */
function keepAddresses(folder: string): void {
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.js') || awareOfBuild.includes(name)) continue;
    const file = join(folder, name);
    const text = readFileSync(file, 'utf8');
    if (!text.includes('import.meta.url')) continue;
    const source = pathToFileURL(join(root, name.replace(/\.js$/, '.ts'))).href;
    writeFileSync(
      file,
      text.replaceAll('import.meta.url', () => JSON.stringify(source)),
    );
  }
}

/** Removes what runs that were killed have left. */
function removeLeftBehind(cache: string): void {
  if (!existsSync(cache)) return;
  for (const name of readdirSync(cache)) {
    const pid = Number(/^tests-(\d+)$/.exec(name)?.[1]);
    if (pid === process.pid || (pid > 0 && !isAlive(pid))) rmSync(join(cache, name), { recursive: true, force: true });
  }
}

/** Compiles the project as it is now. @throws Error with what the compiler says */
export function buildTests(): TestBuild {
  // Inside the project, so that its packages are found.
  const cache = join(root, 'node_modules/.cache/sluice');
  const folder = join(cache, `tests-${process.pid}`);
  removeLeftBehind(cache);
  mkdirSync(folder, { recursive: true });
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  const settings = join(folder, 'tsconfig.json');
  writeFileSync(settings, settingsFor(folder));
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const { status, stdout, stderr } = spawnSync(process.execPath, [compiler, '-p', settings], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) {
    remove();
    throw new Error(`the tests could not be compiled:\n${stdout}${stderr}`.slice(0, 4_000));
  }
  keepAddresses(folder);
  const { version, type, imports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    version: string;
    type: string;
    imports: Record<string, string>;
  };
  const compiled = Object.entries(imports).map(([name, path]) => [name, path.replace(/\.ts$/, '.js')]);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ version, type, imports: Object.fromEntries(compiled) }));
  return { folder, remove };
}

/** Path of a compiled file, given its path in the project. */
export const compiledFile = ({ folder }: Pick<TestBuild, 'folder'>, file: string): string =>
  join(folder, relative('.', file).replace(/\.ts$/, '.js'));
