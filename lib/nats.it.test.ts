/**
 * Log-ins at a real nats-server, by each kind of credentials.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nkeyAuthenticator, nkeys } from '@nats-io/nats-core';
import { pino } from 'pino';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from './errors.js';
import { type Logger, silentLogger } from './logger.js';
import { authenticatorOf, connectNats } from './nats.js';
import { withNats } from './testing/nats.js';
import { until } from './testing/until.js';

const folder = mkdtempSync(join(tmpdir(), 'sluice-login-'));
test.after(() => rmSync(folder, { recursive: true }));

const write = (text: string): string => {
  const file = join(folder, 'credentials');
  writeFileSync(file, text);
  return file;
};

function keptLog(): { readonly logger: Logger; readonly lines: () => string } {
  let lines = '';
  return { logger: pino({ level: 'trace' }, { write: (line) => (lines += line) }), lines: () => lines };
}

const user = nkeys.createUser();
const seed = new TextDecoder().decode(user.getSeed());
/** nats-server's block; what the test's own connection shows; a file and an address that log in. */
const kinds = {
  'user and password': {
    block: 'authorization { user: sluice, password: s3cret }',
    login: { user: 'sluice', pass: 's3cret' },
    file: 'sluice:s3cret\n',
    prefix: 'nats://sluice:s3cret@',
  },
  token: { block: 'authorization { token: s3cret }', login: { token: 's3cret' }, file: 's3cret', prefix: 's3cret@' },
  nkey: {
    block: `authorization { users: [ { nkey: ${user.getPublicKey()} } ] }`,
    login: { authenticator: nkeyAuthenticator(user.getSeed()) },
    file: `${seed}\n`,
    prefix: undefined,
  },
};

for (const [name, { block, login, file, prefix }] of Object.entries(kinds)) {
  test(`a server that asks for a log-in takes ours, by ${name}, and no other`, async () => {
    await withNats(
      async ({ url }) => {
        const base = { name: 'test', logger: silentLogger, timeoutMs: 2_000 };
        for (const address of [
          { servers: url, credentials: write(file) },
          ...(prefix === undefined ? [] : [{ servers: prefix + url }]),
        ]) {
          const nc = await connectNats({ ...base, ...address });
          assert.is(nc.getServer(), url);
          assert.type(authenticatorOf(nc), 'function');
          await nc.flush();
          await nc.close();
        }
        for (const credentials of ['', write('wrong:wrong'), write('wrong')]) {
          const refused = await connectNats({ ...base, servers: url, credentials }).catch((error: unknown) => error);
          assert.instance(refused, UsageError);
          assert.match(
            (refused as Error).message,
            /refuses the log-in \('?Authorization Violation'?\).*--nats-credentials/,
          );
        }
      },
      { more: () => block, login },
    );
  });
}

test('a process that is refused says so, waits, and goes on when its file is right; the log holds no secret', async () => {
  await withNats(
    async ({ url }) => {
      const { logger, lines } = keptLog();
      const credentials = write('sluice:n0t-it');
      const connecting = connectNats({ servers: url, credentials, name: 'test', logger });
      await until('a word in the log', () => lines().includes('refuses the log-in'));
      await new Promise((resolve) => setTimeout(resolve, 500));
      assert.is(lines().split('refuses the log-in').length, 2, 'it is said once');
      write('sluice:s3cret');
      const nc = await connecting;
      await nc.flush();
      await nc.close();
      assert.not.match(lines(), /n0t-it|s3cret/);
    },
    { more: () => kinds['user and password'].block, login: kinds['user and password'].login },
  );
});

test('a password that is changed on the server and in the file is used at the next connect', async () => {
  let password = 'first';
  const login = { authenticator: () => ({ user: 'sluice', pass: password }) };
  await withNats(
    async (nats) => {
      const { logger, lines } = keptLog();
      const credentials = write(`sluice:${password}`);
      const nc = await connectNats({ servers: nats.url, credentials, name: 'test', logger });
      const reconnected = (): boolean => lines().includes('"reconnect"');
      password = 'second';
      nats.process().kill('SIGKILL');
      await nats.restart();
      await until('refusals, more than two', () => lines().split('Authorization Violation').length > 3);
      assert.not.ok(reconnected());
      write(`sluice:${password}`);
      await until('the connection is back', reconnected);
      await nc.flush();
      await nc.close();
      assert.not.match(lines(), /first|second/);
    },
    { more: () => `authorization { user: sluice, password: ${password} }`, login },
  );
});

test.run();
