/** A gateway that asks for a certificate, and the client for Node. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { testEnvironment } from '../lib/config/index.js';
import { addTenant } from '../lib/tenants.js';
import { createAuthority } from '../lib/testing/certificate.js';
import { withNats } from '../lib/testing/nats.js';
import { programFlags, programPath } from '../lib/testing/program.js';
import { EventType, SluiceClient, type SluiceClientOptions } from '../sdk-gen/typescript/src/index.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const [servers, clients] = [createAuthority(), createAuthority()];

async function withTlsGateway(use: (url: string, key: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-tls-'));
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const { cert, key } = servers.issue();
  const flags = [
    ...['--port', '0', '--metrics-port', '0', '--drain-grace', '1s', '--tls-cert', file('cert.pem', cert)],
    ...['--tls-key', file('key.pem', key), '--tls-client-ca', file('ca.pem', clients.ca)],
  ];
  await withNats(async ({ url, nc }) => {
    const tenant = await addTenant(nc, { tenant: 'acme' });
    const gateway = fork(programPath('gateway/main.ts'), ['--nats-url', url, ...flags], {
      cwd: root,
      execArgv: [...programFlags],
      env: testEnvironment(),
      stdio: 'ignore',
    });
    const gone = once(gateway, 'exit');
    try {
      const [{ port }] = (await Promise.race([once(gateway, 'message'), gone])) as [{ port: number }];
      await use(`https://127.0.0.1:${port}`, tenant.key);
    } finally {
      gateway.kill('SIGTERM');
      await gone;
      rmSync(folder, { recursive: true, force: true });
    }
  });
}

test('events are delivered with a certificate, and without one the client says what is missing', async () => {
  await withTlsGateway(async (baseUrl, key) => {
    const { cert, key: certificateKey } = clients.issue({ commonName: 'phone app' });
    const send = async (tls: SluiceClientOptions['tls']) => {
      const errors: string[] = [];
      const client = new SluiceClient({
        baseUrl,
        key,
        onError: ({ message }) => errors.push(message),
        ...(tls && { tls }),
      });
      client.track({ type: EventType.CLICK });
      const { delivered } = await client.close({ timeoutMs: tls?.cert === undefined ? 1_000 : 10_000 });
      return { delivered, errors };
    };
    assert.equal(await send({ ca: servers.ca, cert, key: certificateKey }), { delivered: 1, errors: [] });
    const without = await send({ ca: servers.ca });
    assert.is(without.delivered, 0);
    assert.match(without.errors.join(), /certificate required: it asks clients for a certificate/);
    const distrustful = await send(undefined);
    assert.match(distrustful.errors.join(), /is not trusted .* tls\.ca/);
  });
});

test('TLS options that cannot be used are refused, and no key is shown', () => {
  const { cert, key } = clients.issue();
  for (const [baseUrl, tls, reason] of [
    ['http://127.0.0.1:1', { ca: clients.ca }, /baseUrl has no TLS/],
    ['https://127.0.0.1:1', { cert }, /cert and key, or neither/],
    ['https://127.0.0.1:1', { cert, key: 'secret words' }, /not PEM texts that fit/],
    ['https://127.0.0.1:1', { cert, key: servers.issue().key }, /not PEM texts that fit/],
  ] as const) {
    assert.throws(
      () => new SluiceClient({ baseUrl, key: 'test', tls }),
      (error: unknown) => error instanceof TypeError && reason.test(error.message) && !error.message.includes('secret'),
    );
  }
  assert.ok(key.includes('PRIVATE KEY'));
});

test.run();
