import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { makeFolder } from './make-folder.js';

test('a folder is made with those above it, and what was made is told', () => {
  const base = mkdtempSync(join(tmpdir(), 'sluice-folder-'));
  try {
    const [a, b] = [join(base, 'a'), join(base, 'a/b c')];
    assert.equal(makeFolder(b), [a, b]);
    assert.ok(statSync(b).isDirectory());
    assert.equal(makeFolder(b), []);
    writeFileSync(join(base, 'file'), '');
    for (const path of ['file', 'file/below']) assert.throws(() => makeFolder(join(base, path)), /ENOTDIR/);
  } finally {
    rmSync(base, { recursive: true });
  }
});

test('where no folder can be made, that is an error at once', () => {
  assert.throws(() => makeFolder('/proc/sluice/data'), /ENOENT|EACCES|ENOTDIR/);
});

test.run();
