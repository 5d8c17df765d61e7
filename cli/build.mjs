/**
 * `npm run build [folder]`: compiles what an installation runs, with source maps, to dist/. The folder's package.json names the packages that
 * it needs: `npm ci --omit=dev` beside package-lock.json installs them.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const folder = resolve(process.argv[2] ?? join(root, 'dist'));

rmSync(folder, { recursive: true, force: true });
const compiler = [join(root, 'node_modules/typescript/bin/tsc'), '-p', join(root, 'tsconfig.build.json')];
const { status } = spawnSync(process.execPath, [...compiler, '--outDir', folder], { stdio: 'inherit' });
if (status !== 0) process.exit(1);

const { name, version, license, type, engines, imports, dependencies, optionalDependencies } = JSON.parse(
  readFileSync(join(root, 'package.json'), 'utf8'),
);
const compiled = Object.entries(imports).map(([specifier, path]) => [specifier, path.replace(/\.ts$/, '.js')]);
writeFileSync(
  join(folder, 'package.json'),
  `${JSON.stringify(
    {
      ...{ name, version, private: true, license, type, engines, imports: Object.fromEntries(compiled) },
      ...{ bin: { sluice: './cli/sluice.js' }, dependencies, optionalDependencies },
    },
    null,
    2,
  )}\n`,
);
