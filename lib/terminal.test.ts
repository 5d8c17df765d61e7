import { spawnSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hasControls, print, shellWord, shown } from './terminal.js';

const esc = '\u001b';

test('what a terminal obeys is shown, and all other text is as it was', () => {
  assert.is(shown(`a${esc}[2Jb\u0007\r\u009b1m\u202egpj.exe\u007f`), 'a\\x1b[2Jb\\x07\\x0d\\x9b1m\\u202egpj.exe\\x7f');
  for (const text of ['', 'a\tb\n', 'Zürich 東京 🚀 é']) assert.is(shown(text), text);
  for (const text of ['a\nb', 'a\tb', `${esc}c`, '\u202e']) assert.ok(hasControls(text), JSON.stringify(text));
  assert.not(hasControls('Zürich 東京 🚀'));
});

test('only a terminal gets it escaped', () => {
  const written: string[] = [];
  const write = (text: string): boolean => written.push(text) > 0;
  print(`${esc}[2J`, { isTTY: true, write } as never);
  print(`${esc}[2J`, { isTTY: false, write } as never);
  assert.equal(written, ['\\x1b[2J', `${esc}[2J`]);
});

test('a shell reads a word back as it was', () => {
  for (const word of [
    'plain/path-1.0',
    'with space',
    "it's",
    '$(touch x) `y` "z" \\',
    'a\nb',
    '~',
    '*',
    '[::1]:1',
    '',
  ]) {
    const { stdout } = spawnSync('bash', ['-c', `printf %s ${shellWord(word)}`], { encoding: 'utf8' });
    assert.is(stdout, word);
  }
});

test.run();
