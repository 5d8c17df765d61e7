import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { root } from '../lib/testing/root.js';
import { configurationPage, errorsPage } from './write-docs.js';

const page = (name: string): string => readFileSync(new URL(`../docs/${name}`, import.meta.url), 'utf8');

test('docs/errors.md is the table of lib/errors.ts', () => {
  assert.is(page('errors.md'), errorsPage(), 'run `npm run docs`');
});

test('docs/configuration.md is the tables of lib/config', () => {
  assert.is(page('configuration.md'), configurationPage(), 'run `npm run docs`');
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

test.run();
