import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from './errors.js';
import { natsLogin, withoutCredentials } from './nats-login.js';

const folder = mkdtempSync(join(tmpdir(), 'sluice-login-'));
test.after(() => rmSync(folder, { recursive: true }));

const fileOf = (text: string): string => {
  const file = join(folder, 'credentials');
  writeFileSync(file, text);
  return file;
};

const shown = (servers: string, text?: string): unknown =>
  natsLogin({ servers, ...(text === undefined ? {} : { credentials: fileOf(text) }) }).authenticator?.('nonce');

const refused = (servers: string, credentials: string | undefined, words: RegExp): void =>
  assert.throws(
    () => natsLogin({ servers, ...(credentials === undefined ? {} : { credentials }) }),
    (error: unknown) => error instanceof UsageError && words.test(error.message),
  );

test('a file holds user and password, a token, or an nkey seed', () => {
  assert.equal(shown('a:1', 'sluice:se:cret\n'), { user: 'sluice', pass: 'se:cret' });
  assert.equal(shown('a:1', 't0ken\r\n'), { auth_token: 't0ken' });
  const { nkey, sig } = shown('a:1', 'SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY') as Record<
    string,
    string
  >;
  assert.match(String(nkey), /^U[A-Z2-7]{55}$/);
  assert.match(String(sig), /^[\w+/=-]{80,}$/);
  assert.is(shown('a:1'), undefined);
});

test('addresses may hold credentials, which never stay in what is shown', () => {
  assert.equal(shown('nats://me:p%40ss@a:1,nats://me:p%40ss@b:2'), { user: 'me', pass: 'p@ss' });
  assert.equal(shown('t0ken@a:1'), { auth_token: 't0ken' });
  const { servers } = natsLogin({ servers: 'nats://me:p@ss@a:1, me:p@ss@[::1]:4222, b' + ':2' });
  assert.equal(servers, ['nats://a:1', '[::1]:4222', 'b:2']);
  assert.is(withoutCredentials('nats://me:secret@a:1, b:2'), 'nats://a:1,b:2');
});

test('the file is read at each log-in; while it cannot be read, the last credentials are shown', () => {
  const credentials = fileOf('old');
  const { authenticator } = natsLogin({ servers: 'a:1', credentials });
  fileOf('new');
  assert.equal(authenticator?.(), { auth_token: 'new' });
  rmSync(credentials);
  assert.equal(authenticator?.(), { auth_token: 'new' });
});

test('what cannot be used is refused with the setting and the file, and without the secret', () => {
  refused('a:1', '/nonexistent/file', /^--nats-credentials: the file \/nonexistent\/file cannot be read \(ENOENT/);
  refused('a:1', fileOf('\n'), /is empty/);
  refused('a:1', '/dev/zero', /more than 65536 bytes/);
  refused('a:1', fileOf('-----BEGIN NATS USER JWT-----\nbroken\n'), /not a \.creds file that NATS can use\.$/);
  refused('u:p@a:1', fileOf('token'), /given twice/);
  refused('u:p@a:1,u:q@b:1', undefined, /different credentials/);
  refused('u:%zz@a:1', undefined, /^--nats-url: write a "%" of the credentials as %25[^z]*$/);
});

test.run();
