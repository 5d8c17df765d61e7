import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { configurationPage, errorsPage } from './write-docs.js';

const page = (name: string): string => readFileSync(new URL(`../docs/${name}`, import.meta.url), 'utf8');

test('docs/errors.md is the table of lib/errors.ts', () => {
  assert.is(page('errors.md'), errorsPage(), 'run `npm run docs`');
});

test('docs/configuration.md is the tables of lib/config', () => {
  assert.is(page('configuration.md'), configurationPage(), 'run `npm run docs`');
});

test.run();
