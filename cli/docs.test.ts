import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { root } from '../lib/testing/root.js';
import { configurationPage, errorsPage } from './write-docs.js';

const page = (name: string): string => readFileSync(new URL(`../docs/${name}`, import.meta.url), 'utf8');

/** Fails with the first line that differs: whole pages would hide what to do. */
function isCurrent(name: string, made: string): void {
  const lines = made.split('\n');
  const committed = page(name).split('\n');
  const at = lines.findIndex((line, index) => line !== committed[index]);
  if (at === -1 && lines.length === committed.length) return;
  const line = at === -1 ? lines.length : at;
  assert.unreachable(
    `run \`npm run docs\`: docs/${name} is not current. Line ${line + 1} must be: ${lines[line] ?? '(nothing: the page ends before)'}`,
  );
}

test('docs/errors.md is the table of lib/errors.ts', () => {
  isCurrent('errors.md', errorsPage());
});

test('docs/configuration.md is the tables of lib/config', () => {
  isCurrent('configuration.md', configurationPage());
});

const pages: readonly string[] = [
  ...['README.md', 'CONTRIBUTING.md', 'SECURITY.md'],
  ...readdirSync(join(root, 'docs')).map((name) => join('docs', name)),
].filter((name) => name.endsWith('.md'));

/** Headings as GitHub makes anchors of them. */
const anchors = (text: string): string[] =>
  [...text.replace(/^```[\s\S]*?^```$/gm, '').matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );

test('each link of the documents leads to a file, and to a heading in it', () => {
  let seen = 0;
  const broken = pages.flatMap((from) => {
    const text = readFileSync(join(root, from), 'utf8').replace(/^```[\s\S]*?^```$/gm, '');
    return [...text.matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, to = '']) => {
      if (/^https?:/.test(to)) return [];
      seen++;
      const [path = '', anchor] = to.split('#');
      const target = path === '' ? join(root, from) : join(root, dirname(from), path);
      if (!existsSync(target)) return [`${from}: ${to}`];
      if (anchor === undefined || anchors(readFileSync(target, 'utf8')).includes(anchor)) return [];
      return [`${from}: no heading for ${to} in ${relative(root, target)}`];
    });
  });
  assert.equal(broken, []);
  assert.ok(seen > 80, `only ${seen} links were found`);
});

test('each source file that the documents name is there', () => {
  const absent = pages.flatMap((from) =>
    [...readFileSync(join(root, from), 'utf8').matchAll(/`((?:[a-z-]+\/)+[\w.-]+\.ts)`/g)]
      .map(([, path = '']) => path)
      .filter((path) => !existsSync(join(root, path)))
      .map((path) => `${from}: ${path}`),
  );
  assert.equal(absent, []);
});

test('each limit that docs/security.md names is a setting or a constant of the code', () => {
  const sources = ['gateway', 'workers', 'lib']
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
    )
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))
    .map((name) => readFileSync(join(root, name), 'utf8'))
    .join('\n');
  const names = [...page('security.md').matchAll(/`(max[A-Z]\w*|\w+(?:AtOnce|Bytes|OfConnection|OfAddress))`/g)].map(
    ([, name = '']) => name,
  );
  assert.ok(names.length > 20, `only ${names.length} limits were found`);
  assert.equal(
    names.filter((name) => !new RegExp(`\\b${name}\\b`).test(sources)),
    [],
  );
});

test.run();
