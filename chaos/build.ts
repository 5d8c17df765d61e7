/**
 * The project as plain JavaScript in a folder of its own. A run starts some thousand processes, and compiling TypeScript on the way
 * (tsx) is two thirds of a start: 0.5 instead of 1.7 CPU-seconds for a gateway. The statements are those of the source, so a control
 * run can replace one of them here and leave production code without a switch (controls.ts).
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Patch } from './controls.js';

/** The root of the project. */
export const root = fileURLToPath(new URL('..', import.meta.url));

/** Compiles into `folder`, which must be empty, and applies the patches. @throws Error when a statement to replace is not there once */
export function buildProject(folder: string, patches: readonly Patch[]): void {
  mkdirSync(folder, { recursive: true });
  const settings = join(folder, 'tsconfig.json');
  const source = ['lib', 'gateway', 'workers', 'sdk-gen', 'chaos'].map((room) => join(root, room));
  writeFileSync(
    settings,
    JSON.stringify({
      extends: join(root, 'tsconfig.json'),
      compilerOptions: {
        noEmit: false,
        noCheck: true,
        outDir: folder,
        rootDir: root,
        typeRoots: [join(root, 'node_modules/@types')],
      },
      include: source,
      exclude: source.map((room) => join(room, '**/*.test.ts')),
    }),
  );
  const tsc = spawnSync(join(root, 'node_modules/.bin/tsc'), ['-p', settings], { cwd: root, encoding: 'utf8' });
  if (tsc.status !== 0)
    throw new Error(`the project could not be compiled:\n${tsc.stdout}${tsc.stderr}`.slice(0, 4_000));
  const { imports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    imports: Record<string, string>;
  };
  const built = Object.entries(imports).map(([name, path]) => [name, path.replace(/\.ts$/, '.js')]);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ type: 'module', imports: Object.fromEntries(built) }));
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  for (const patch of patches) applyPatch(folder, patch);
}

function applyPatch(folder: string, { file, find, put }: Patch): void {
  const path = join(folder, file);
  const text = readFileSync(path, 'utf8');
  const places = text.split(find).length - 1;
  if (places !== 1) {
    throw new Error(
      `the control's statement is in ${file} ${places} times: ${find}\nThe code has changed; chaos/controls.ts has to follow.`,
    );
  }
  writeFileSync(
    path,
    text.replace(find, () => put),
  );
}
