import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from './errors.js';
import { clickhousePassword, readSecret, secretIn, writeSecret } from './secret-file.js';

const folder = mkdtempSync(join(tmpdir(), 'sluice-secret-'));
test.after(() => rmSync(folder, { recursive: true }));
const modeOf = (file: string): number => statSync(file).mode & 0o777;

test('a secret is made once, for its owner alone, whatever the umask; made again when removed or empty', () => {
  const file = join(folder, 'made');
  for (const umask of [0, 0o777]) {
    rmSync(file, { force: true });
    const before = process.umask(umask);
    const secret = secretIn(file, 'me:');
    process.umask(before);
    assert.match(secret, /^me:[\w-]{43}$/);
    assert.is(modeOf(file), 0o600);
    assert.is(secretIn(file), secret);
    assert.is(readSecret(file, '--x'), secret);
  }
  writeFileSync(file, '');
  assert.match(secretIn(file), /^[\w-]{43}$/);
});

test('a file that others could read is closed', () => {
  const file = join(folder, 'open');
  writeFileSync(file, 'secret\n');
  chmodSync(file, 0o644);
  assert.is(secretIn(file), 'secret');
  assert.is(modeOf(file), 0o600);
});

test('symbolic links are not followed', () => {
  const [link, target] = [join(folder, 'link'), join(folder, 'target')];
  symlinkSync(target, link);
  assert.throws(
    () => secretIn(link),
    (error: unknown) => error instanceof UsageError && /not a plain file/.test(error.message),
  );
  symlinkSync(target, `${join(folder, 'new')}.new`);
  writeSecret(join(folder, 'new'), 'text');
  writeSecret(link, 'text');
  assert.not.ok(existsSync(target));
  assert.is(readFileSync(link, 'utf8'), 'text');
});

test('a password comes from one place', () => {
  const file = join(folder, 'password');
  writeFileSync(file, 'secret\r\n');
  assert.is(clickhousePassword({ clickhousePassword: '', clickhousePasswordFile: file }), 'secret');
  assert.is(clickhousePassword({ clickhousePassword: 'given', clickhousePasswordFile: '' }), 'given');
  assert.throws(() => clickhousePassword({ clickhousePassword: 'given', clickhousePasswordFile: file }), /both given/);
  assert.throws(() => clickhousePassword({ clickhousePassword: '', clickhousePasswordFile: folder }), /cannot be read/);
});

test.run();
