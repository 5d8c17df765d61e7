/**
 * Rules and facts have ids: LOAD-3 is the third rule at the head of workers/loader/loader.ts, FACT-8 a line of docs/facts.md.
 * Each id that code or docs cite is defined once, each prefix belongs to one file, and each defined id has a definition of its own.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const root = fileURLToPath(new URL('../..', import.meta.url));
const facts = 'docs/facts.md';

/** Names of the same shape that others gave. */
const foreign = new Set(['AES', 'CVE', 'GMT', 'HMAC', 'ISO', 'RFC', 'RSA', 'SHA', 'SSH', 'TLSV', 'UTC', 'UTF']);

const citation = /(?<![\w$./:-])([A-Z]{3,})-(\d{1,3})(?![\w-])/g;
/** At the head of a source file: ` *   LOAD-3  The next block …`. In docs/facts.md: `- **FACT-8** …`. */
const ruleLine = /^ \* {3}([A-Z]{3,})-(\d+) {2}\S/gm;
const factLine = /^- \*\*(FACT)-(\d+)\*\*/gm;
/** An id from the time before prefixes, in brackets or at the beginning of a comment or of a test's name. */
const bare = /\((?:(?!P\d\d)[A-Z]\d{1,2}(?:, | to |–|\)))|(?:\/\/|\/\*\*|test\(['`]) ?[A-Z]\d{1,2}(?:[.:,]| \*\/|$)/gm;

interface Found {
  readonly id: string;
  readonly prefix: string;
  readonly place: string;
}

function found(pattern: RegExp, path: string, text: string): Found[] {
  return [...text.matchAll(pattern)].map(({ 0: whole, 1: prefix = '', 2: number, index }) => ({
    id: number === undefined ? whole : `${prefix}-${number}`,
    prefix,
    place: `${path}:${text.slice(0, index).split('\n').length}`,
  }));
}

/** What is wrong with the ids in these texts, by path. */
function faultsOf(texts: ReadonlyMap<string, string>): string[] {
  const { ids, faults } = definitions(texts);
  const cited = [...texts].flatMap(([path, text]) => [
    ...found(citation, path, text)
      .filter(({ id, prefix }) => !foreign.has(prefix) && !ids.has(id))
      .map(({ id, place }) => `${place}: ${id} is defined nowhere`),
    ...found(bare, path, text).map(({ id, place }) => `${place}: ${id} has no prefix`),
  ]);
  return [...faults, ...cited];
}

/** Where each id is defined, and what is wrong with that. */
function definitions(texts: ReadonlyMap<string, string>): { ids: ReadonlyMap<string, Found>; faults: string[] } {
  const faults: string[] = [];
  const ids = new Map<string, Found>();
  const owner = new Map<string, string>();
  for (const [path, text] of texts) {
    for (const one of found(path === facts ? factLine : ruleLine, path, text)) {
      const twin = ids.get(one.id);
      if (twin !== undefined) faults.push(`${one.place}: ${one.id} is defined at ${twin.place} already`);
      ids.set(one.id, one);
      if (owner.has(one.prefix) && owner.get(one.prefix) !== path)
        faults.push(`${one.place}: the prefix ${one.prefix} belongs to ${owner.get(one.prefix)}`);
      owner.set(one.prefix, path);
    }
  }
  return { ids, faults };
}

const skipped = new Set(['node_modules', 'gen', 'dist', 'sluice-data']);

/** Source and docs by path from the root, without generated ones and this one. */
function ownTexts(folder = '', texts = new Map<string, string>()): Map<string, string> {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (!skipped.has(entry.name) && !entry.name.startsWith('.')) ownTexts(path, texts);
    } else if (/\.(?:ts|mjs|md|proto|go|sh|yaml|conf|xml)$/.test(entry.name) && entry.name !== 'guard-ids.test.ts') {
      texts.set(path, readFileSync(join(root, path), 'utf8'));
    }
  }
  return texts;
}

test('every id of a rule or a fact that code or docs cite is defined once, in the file of its prefix', () => {
  const texts = ownTexts();
  assert.equal(faultsOf(texts), []);
  const cited = [...texts].flatMap(([path, text]) => found(citation, path, text));
  assert.ok(cited.length > 500, `only ${cited.length} citations were found: does the pattern still match?`);
});

test('an id that is missing, doubled, shared between files or without a prefix is found', () => {
  const rules = ' *   LOAD-1  One.\n *   LOAD-2  Two (SHA-256).\n';
  const wrong = (...more: readonly (readonly [string, string])[]): string[] =>
    faultsOf(new Map([['a.ts', rules], [facts, '- **FACT-1** One.\n'], ...more]));
  assert.equal(wrong(['b.ts', '// LOAD-2, FACT-1.\n']), []);
  assert.equal(wrong(['b.ts', '\n// LOAD-3\n']), ['b.ts:2: LOAD-3 is defined nowhere']);
  assert.equal(wrong(['b.md', 'see FACT-2']), ['b.md:1: FACT-2 is defined nowhere']);
  assert.equal(wrong(['b.ts', 'x(); // L2\n'])[0], 'b.ts:1: // L2 has no prefix');
  assert.equal(wrong(['b.ts', '/** What stays (L2, L3). */'])[0], 'b.ts:1: (L2,  has no prefix');
  assert.equal(wrong(['b.ts', ' *   LOAD-2  Once more.\n']), [
    'b.ts:1: LOAD-2 is defined at a.ts:2 already',
    'b.ts:1: the prefix LOAD belongs to a.ts',
  ]);
});

test.run();
