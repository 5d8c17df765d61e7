/**
 * What holds for the English of documents, help, errors, comments and test names: none of the phrases below. Each hides who does what,
 * or has no meaning in the field. CONTRIBUTING.md says how we write.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Phrase → what to write in its place. The only list: add a phrase here, and correct what the test then finds. */
const banned: readonly (readonly [phrase: RegExp, instead: string])[] = [
  [/\b(?:is|are|was|were|be|been|being) told\b(?! apart)/i, 'who says what: "the gateway asks", "the client hears"'],
  [/\b(?:is|are|was|were) told (?:by|of)\b/i, 'who says what'],
  [/\btold of\b|\btells? of\b/i, '"reports"'],
  [/\bcom(?:e|es|ing) to be\b|\bcame to be\b/i, '"becomes", or the plain verb'],
  [/\banew\b/i, '"again"'],
  [/\bnobody\b|\bwhoever\b/i, 'who: "no client", "the worker that …"'],
  [/\bfor good\b/i, '"finally", or leave it out'],
  [/\bwhatever (?:happens|died|dies|became)\b/i, 'which case: "also after an error"'],
  [/\bunasked\b/i, 'who starts it'],
  [/\bfor ever\b(?!y)/i, '"forever", "without end"'],
  [/\bin vain\b/i, 'what failed'],
  [/\bof before\b/i, '"earlier", "older"'],
  [/\bat the most\b/i, '"at most"'],
  [/\bfor the sake of\b/i, '"for", "because of"'],
  [/\b(?:is|are) to be had\b/i, '"is available"'],
  [/\bnot for sure\b/i, '"may not …"'],
  [/\bit is not so\b/i, 'what is the case'],
];

/** Text that people read: all of a document, and of a source its comments and the texts with a space in them. */
export function prose(file: string, text: string): string[] {
  if (file.endsWith('.md')) return text.split('\n');
  return text.split('\n').map((line) => {
    if (/^\s*(?:\/\*|\*|\/\/|#|--|<!--)/.test(line)) return line;
    const comment = /\s(?:\/\/|#) .*$/.exec(line)?.[0] ?? '';
    const texts = [...line.matchAll(/'(?:[^'\\]|\\.)* (?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)* (?:[^"\\]|\\.)*"/g)];
    // A template may begin and end on other lines.
    const template = line.includes('`') || /^\s*[A-Za-z][\w ,.'-]+$/.test(line) ? line : '';
    return [...texts.map(([found]) => found), template, comment].join(' ');
  });
}

/** @returns `line: "phrase": what to write` for each banned phrase */
export function faults(file: string, text: string): string[] {
  return prose(file, text).flatMap((line, i) =>
    banned.flatMap(([phrase, instead]) => {
      const [found] = phrase.exec(line) ?? [];
      return found === undefined ? [] : [`${file}:${i + 1}: "${found}": write ${instead}`];
    }),
  );
}

const read = /\.(?:ts|mjs|md|proto|ya?ml|sh|conf|xml)$|Dockerfile$/;
const self = 'lib/testing/guard-words.test.ts';
/** Not written by us, or not kept. */
const foreign: readonly string[] = ['node_modules', '.git', 'gen', 'dist', 'sluice-data', 'target'];

function* written(folder = ''): Generator<string> {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory() && !foreign.includes(entry.name)) yield* written(path);
    else if (entry.isFile() && read.test(entry.name)) yield path;
  }
}

test('documents, help, errors, comments and test names say who does what', () => {
  const files = [...written()].filter((file) => file !== self);
  assert.ok(files.length > 500, `only ${files.length} files were found`);
  assert.equal(
    files.flatMap((file) => faults(file, readFileSync(join(root, file), 'utf8'))),
    [],
  );
});

test('a banned phrase is found in a document, a comment and a text, and not in a name', () => {
  assert.is(faults('a.md', 'A client\nis told nothing.').length, 1);
  assert.is(faults('a.ts', '// The stream was made anew.').length, 1);
  assert.is(faults('a.ts', '/** Whoever asks. */').length, 1);
  assert.is(faults('a.ts', "const a = 1; throw new Error('nobody listens');").length, 1);
  assert.is(faults('a.ts', 'throw new Error(`nobody listens on a port`);').length, 1);
  assert.is(faults('a.ts', 'const anew = nobody.code; // kept').length, 0);
  assert.is(faults('a.ts', "// Two copies are told apart, for every 'key'.").length, 0);
});

test.run();
