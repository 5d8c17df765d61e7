import { mkdirSync, mkdtempSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { makeFolder, makePrivateFolder } from './make-folder.js';

test('a folder is made with those above it, and what was made is reported', () => {
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

test('a private folder is its owner’s alone, whatever the umask, and one that was open is closed', () => {
  const base = mkdtempSync(join(tmpdir(), 'sluice-folder-'));
  const before = process.umask(0);
  try {
    const folder = join(base, 'private');
    for (const umask of [0, 0o777]) {
      process.umask(umask);
      makePrivateFolder(folder);
      assert.is(statSync(folder).mode & 0o777, 0o700);
      rmdirSync(folder);
    }
    process.umask(0);
    mkdirSync(folder, 0o777);
    makePrivateFolder(folder);
    assert.is(statSync(folder).mode & 0o777, 0o700);
  } finally {
    process.umask(before);
    rmSync(base, { recursive: true });
  }
});

test('where no folder can be made, that is an error at once', () => {
  assert.throws(() => makeFolder('/proc/sluice/data'), /ENOENT|EACCES|ENOTDIR/);
});

test.run();
