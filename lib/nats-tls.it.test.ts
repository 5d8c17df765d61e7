/** TLS between a process and the real nats-server. */

import type { NatsConnection } from '@nats-io/transport-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from './errors.js';
import { silentLogger } from './logger.js';
import { connectNats, mustEncrypt } from './nats.js';
import type { NatsTlsFiles } from './nats-tls.js';
import { createAuthority, type TestCertificate } from './testing/certificate.js';
import { currentNats } from './testing/current-nats.js';
import { withNats } from './testing/nats.js';
import { testFiles } from './testing/test-files.js';

const authority = createAuthority();
const file = testFiles('sluice-nats-tls-');
const ca = file('ca.pem', authority.ca);
const filesOf = (name: string, { cert, key }: TestCertificate): { cert: string; key: string } => ({
  cert: file(`${name}.pem`, cert),
  key: file(`${name}-key.pem`, key),
});
const client = filesOf('client', authority.issue({ commonName: 'sluice gateway' }));
const none: NatsTlsFiles = { ca: '', cert: '', key: '', first: false };

/** The `tls` block of a server, and what lets the test's own connection in. */
function serverWith(certificate: TestCertificate, more = '') {
  const { cert, key } = filesOf('server', certificate);
  const block = `tls { cert_file: "${cert}", key_file: "${key}", ca_file: "${ca}", timeout: 5, ${more} }\n`;
  const first = /handshake_first/.test(more) ? { handshakeFirst: true } : {};
  const own = authority.issue();
  return { more: () => block, login: { tls: { ca: authority.ca, cert: own.cert, key: own.key, ...first } } };
}

const dial = (servers: string, tls: NatsTlsFiles): Promise<NatsConnection> =>
  connectNats({ servers, tls, name: 'test', logger: silentLogger, timeoutMs: 1_500 });

async function echoes(servers: string, tls: NatsTlsFiles): Promise<boolean> {
  const nc = await dial(servers, tls);
  try {
    nc.subscribe('echo', { callback: (_, message) => void message.respond(message.data) });
    return (await nc.request('echo', 'hello')).string() === 'hello' && mustEncrypt(nc);
  } finally {
    await nc.close();
  }
}

async function refusedWith(servers: string, tls: NatsTlsFiles, reason: RegExp): Promise<void> {
  try {
    await (await dial(servers, tls)).close();
  } catch (error) {
    assert.instance(error, UsageError, String(error));
    assert.match((error as Error).message, reason);
    return;
  }
  assert.unreachable('connected');
}

test('with the CA of the server and a certificate that it takes, requests go through TLS', async () => {
  const settings = serverWith(authority.issue({ names: 'IP:127.0.0.1,DNS:localhost' }), 'verify: true');
  await withNats(async ({ url }) => {
    const named = `localhost:${url.split(':')[1]}`;
    assert.ok(await echoes(url, { ...none, ca, ...client }));
    assert.ok(await echoes(`tls://${named}`, { ...none, ca, ...client }));
    const stranger = createAuthority();
    await refusedWith(url, { ...none, ca: file('other-ca.pem', stranger.ca), ...client }, /TLS with NATS .* fails/);
    await refusedWith(url, { ...none, ...client }, /TLS with NATS .* fails/);
    const [foreign, expired] = [stranger.issue(), authority.issue({ days: -1 })];
    for (const shown of [{}, filesOf('foreign', foreign), filesOf('expired', expired)]) {
      await refusedWith(url, { ...none, ca, ...shown }, /wants --nats-tls-cert and --nats-tls-key/);
    }
  }, settings);
});

test('a server whose certificate has expired or names another host is refused', async () => {
  for (const [certificate, reason] of [
    [authority.issue({ days: -1 }), /certificate has expired/],
    [authority.issue({ names: 'DNS:elsewhere.example' }), /elsewhere\.example|does not match/],
  ] as const) {
    const settings = serverWith(certificate);
    const login = { tls: { ca: authority.ca, rejectUnauthorized: false } as never };
    await withNats(
      async ({ url }) => {
        await refusedWith(url, { ...none, ca }, reason);
      },
      { ...settings, login },
    );
  }
});

test('a server that offers no TLS is refused when TLS is asked for, before anything is sent to it', async () => {
  await withNats(async ({ url }) => {
    await refusedWith(url, { ...none, ca }, /offers no TLS/);
    await refusedWith(`tls://user:secret@${url}`, none, /offers no TLS/);
  });
});

test('a server that wants the handshake first', async () => {
  const { program, ...rest } = await currentNats();
  if (program === undefined) return console.log(`skipped: ${'reason' in rest ? rest.reason : ''}`);
  const settings = serverWith(authority.issue(), 'handshake_first: true');
  await withNats(
    async ({ url }) => {
      assert.ok(await echoes(url, { ...none, ca, first: true }));
      try {
        await (await dial(url, { ...none, ca })).close();
        assert.unreachable('connected');
      } catch (error) {
        assert.not.match(String(error), /unreachable/);
      }
    },
    { ...settings, program },
  );
});

test('files that cannot be used are refused with the flag that names them', async () => {
  const bad = file('bad.pem', 'no certificate');
  for (const [tls, reason] of [
    [{ ...none, ca: bad }, /--nats-tls-ca: .* holds no certificate/],
    [{ ...none, ca: '/nowhere/missing.pem' }, /--nats-tls-ca: .* cannot be read/],
    [{ ...none, cert: client.cert }, /--nats-tls-cert and --nats-tls-key go together/],
    [{ ...none, cert: client.cert, key: '/nowhere/missing.pem' }, /--nats-tls-key: .* cannot be read/],
  ] as const) {
    await refusedWith('127.0.0.1:1', tls, reason);
  }
});

test.run();
