/**
 * A function has at most 90 lines and a cognitive complexity of at most 20: Biome's rules hold that. The functions that may be more complex
 * are listed here, each with a `biome-ignore` comment that says why at the function itself. Biome refuses a comment that is needed no more.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** File, and functions in the order in which they stand there: scanners in one pass, and loops over each request. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  'gateway/api/hot/request.ts': ['readPlain'],
  'gateway/held/whole-messages.ts': ['messages'],
  'lib/contract/json/text.ts': ['skip'],
  'lib/contract/scan.ts': ['scanBatch'],
  'lib/contract/text.ts': ['validUtf8'],
  'workers/clickhouse/schema/field-presence.ts': ['walk', 'walkBatch'],
  'workers/loader/block.ts': ['countPayload'],
  'workers/loader/frames.ts': ['eachFrame'],
};
/** This number goes down and never up. */
const most = 9;

const excused =
  /biome-ignore(?:-all|-start)? lint(?:\/complexity(?:\/noExcessive(?:LinesPerFunction|CognitiveComplexity))?)?: .+\n(?:.*\bfunction\*? (\w+)|.*\bconst (\w+) = |\s*(?:\w+ )*(\w+)\(.*\{)?/g;

const skipped = new Set(['node_modules', 'gen', 'dist', 'sluice-data']);

/** Functions with such a comment, by file; `?`: it stands before no function. */
function excusedFunctions(folder = '', found: Record<string, string[]> = {}): Record<string, string[]> {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (!skipped.has(entry.name) && !entry.name.startsWith('.')) excusedFunctions(path, found);
    } else if (/\.(?:ts|mjs|js)$/.test(entry.name)) {
      const names = namesIn(readFileSync(join(root, path), 'utf8'));
      if (names.length > 0) found[path] = names;
    }
  }
  return found;
}

function namesIn(text: string): string[] {
  return [...text.matchAll(excused)].map(([, declared, constant, method]) => declared ?? constant ?? method ?? '?');
}

test('only the functions of this list are longer or more complex than the limits, and the list does not grow', () => {
  assert.equal(excusedFunctions(), allowed);
  const count = Object.values(allowed).flat().length;
  assert.is(count, most, `${count} functions are listed: lower the number when one has gone, and do not raise it`);
});

test('no part of the source is left out of the two rules', () => {
  const config = readFileSync(join(root, 'biome.json'), 'utf8');
  const { linter, overrides } = JSON.parse(config) as {
    linter: { rules: { complexity: unknown } };
    overrides?: unknown;
  };
  assert.equal(linter.rules.complexity, {
    noExcessiveLinesPerFunction: { level: 'error', options: { maxLines: 90 } },
    noExcessiveCognitiveComplexity: { level: 'error', options: { maxAllowedComplexity: 20 } },
  });
  assert.is(overrides, undefined);
});

test('a comment that excuses a function is found, however the function is written', () => {
  const comment = ['// biome-ignore lint/complexity', 'noExcessiveCognitiveComplexity: one pass'].join('/');
  assert.equal(namesIn(`${comment}\nexport function readPlain(bytes: Buffer): void {`), ['readPlain']);
  assert.equal(namesIn(`${comment}\nasync function* messages(\n  chunks,\n) {`), ['messages']);
  assert.equal(namesIn(`  ${comment}\n  private skip(strict: boolean): void {`), ['skip']);
  assert.equal(namesIn(`${comment}\nconst walk = (p: number): boolean => {`), ['walk']);
  assert.equal(namesIn(`${comment}\nexport default () => {};`), ['?']);
  assert.equal(namesIn(`${['// biome-ignore', 'lint: x'].join(' ')}\nfunction all() {`), ['all']);
  assert.equal(namesIn(comment.replace('biome-ignore', 'biome-ignore-all').concat('\n')), ['?']);
});

test.run();
