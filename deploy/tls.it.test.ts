/**
 * TLS between the parts as deploy/tls.sh, deploy/nats-tls.conf and deploy/compose.tls.yaml set it up, with the real nats-server. ClickHouse's
 * side is not run: workers/clickhouse/tls.it.test.ts tests the client.
 */
import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { parse } from 'yaml';
import { allOptions, testEnvironment, variableOf } from '../lib/config/index.js';
import { silentLogger } from '../lib/logger.js';
import { connectNats } from '../lib/nats.js';
import { withDeployedNats } from './testing/deployed-nats.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (file: string): string => readFileSync(join(root, file), 'utf8');

function withCertificates<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-deploy-tls-'));
  const made = spawnSync('sh', [join(root, 'deploy/tls.sh'), folder], { encoding: 'utf8' });
  assert.is(made.status, 0, made.stderr);
  return use(folder).finally(() => rmSync(folder, { recursive: true, force: true }));
}

test('a user gets in with a certificate and its password, and with neither of them alone', async () => {
  await withCertificates(async (folder) => {
    const block = read('deploy/nats-tls.conf')
      .slice(read('deploy/nats-tls.conf').indexOf('tls {'))
      .replaceAll('/etc/nats/tls', join(folder, 'nats'));
    await withDeployedNats(
      async (nats) => {
        const of = (part: string) => ({
          ca: join(folder, part, 'ca.pem'),
          cert: join(folder, part, 'cert.pem'),
          key: join(folder, part, 'key.pem'),
          first: false,
        });
        const options = { name: 'test', logger: silentLogger, timeoutMs: 2_000 };
        const nc = await connectNats({ ...options, servers: nats.url('gateway'), tls: of('gateway'), user: 'gateway' });
        await nc.flush();
        await nc.close();
        for (const [servers, tls, reason] of [
          [nats.url('gateway'), { ...of('gateway'), cert: '', key: '' }, /--nats-tls-cert and --nats-tls-key/],
          // A certificate for servers is none for clients.
          [nats.url('gateway'), of('nats'), /--nats-tls-cert and --nats-tls-key/],
          [nats.address, of('gateway'), /refuses the log-in/],
        ] as const) {
          try {
            await (await connectNats({ ...options, servers, tls })).close();
            assert.unreachable('connected');
          } catch (error) {
            assert.match((error as Error).message, reason);
          }
        }
        // A command with the variables of compose.tls.yaml.
        const files = {
          SLUICE_NATS_TLS_CA: 'ca.pem',
          SLUICE_NATS_TLS_CERT: 'cert.pem',
          SLUICE_NATS_TLS_KEY: 'key.pem',
        };
        const variables = Object.entries(files).map(([name, file]) => [name, join(folder, 'admin', file)]);
        const setup = spawnSync(process.execPath, ['cli/sluice.mjs', 'setup', '--shard-max-bytes', '64MiB'], {
          cwd: root,
          encoding: 'utf8',
          env: { ...testEnvironment(), ...Object.fromEntries(variables), SLUICE_NATS_URL: nats.url('admin') },
        });
        assert.is(setup.status, 0, setup.stderr);
      },
      'nats-server',
      block,
    );
  });
});

test('certificates are renewed beside the same authority, and keys are closed to others on the host', async () => {
  await withCertificates(async (folder) => {
    const serial = (): string => new X509Certificate(readFileSync(join(folder, 'nats/cert.pem'))).serialNumber;
    const [ca, before] = [readFileSync(join(folder, 'ca.pem'), 'utf8'), serial()];
    assert.is(spawnSync('sh', [join(root, 'deploy/tls.sh'), folder, '30']).status, 0);
    assert.is(readFileSync(join(folder, 'ca.pem'), 'utf8'), ca);
    assert.is.not(serial(), before);
    assert.is(statSync(folder).mode & 0o777, 0o700);
    assert.is(statSync(join(folder, 'ca-key.pem')).mode & 0o777, 0o600);
    assert.ok(
      new X509Certificate(readFileSync(join(folder, 'gateway/cert.pem'))).verify(new X509Certificate(ca).publicKey),
    );
  });
});

test('compose.tls.yaml names services, settings and files that there are', () => {
  type Services = Record<string, { environment?: Record<string, string>; volumes?: string[] }>;
  const { services } = parse(read('deploy/compose.tls.yaml'), { merge: true }) as { services: Services };
  const base = parse(read('compose.yaml'), { merge: true }) as { services: Services };
  const known = new Set(Object.values(allOptions).flatMap((table) => Object.keys(table).map(variableOf)));
  for (const [name, { environment = {}, volumes = [] }] of Object.entries(services)) {
    assert.ok(base.services[name] !== undefined, name);
    for (const variable of Object.keys(environment)) assert.ok(known.has(variable), variable);
    for (const volume of volumes) {
      const [from = ''] = volume.split(':');
      if (from.startsWith('./deploy/tls/')) assert.ok(read('deploy/tls.sh').includes(from.slice(13)), from);
      else assert.ok(statSync(join(root, from)).isFile(), from);
    }
    // Each part that speaks to NATS or ClickHouse in the base does so here.
    const asked = Object.keys(base.services[name]?.environment ?? {});
    for (const url of ['SLUICE_NATS_URL', 'SLUICE_CLICKHOUSE_URL']) {
      const ca = url.replace('URL', 'TLS_CA');
      assert.is(environment[ca] !== undefined, asked.includes(url), `${name} ${ca}`);
    }
  }
  assert.equal(Object.keys(services).sort(), Object.keys(base.services).sort());
});

test.run();
