/**
 * How tests and benchmarks start programs of the project: sources run through tsx, and what the test run has compiled (cli/test-build.ts)
 * starts what is compiled, which takes half the processor.
 */
import { extname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root } from './root.js';

/** The folder that this runs from: the checkout, or the compiled files. */
const here = fileURLToPath(new URL('../..', import.meta.url));
export const isCompiled = extname(import.meta.url) === '.js';

/** Node's arguments before a program's path, in any folder of the project. */
export const programFlags: readonly string[] = isCompiled ? ['--enable-source-maps'] : ['--import', 'tsx'];

/** Path of a program, given its source: from the root of the project, absolute, or as an address. */
export function programPath(source: string | URL): string {
  const path = resolve(root, source instanceof URL ? fileURLToPath(source) : source);
  return isCompiled ? join(here, relative(root, path).replace(/\.ts$/, '.js')) : path;
}
