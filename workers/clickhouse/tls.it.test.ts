/**
 * ClickHouse over https://: the embedded server behind a TLS proxy, as it has no TLS of its own. A real server's `https_port` was not at
 * hand; what is tested is the client's side.
 */

import { type AddressInfo, connect } from 'node:net';
import { createServer } from 'node:tls';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { clickhouseClientOptions, resolveOptions } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { silentLogger } from '../../lib/logger.js';
import { createAuthority, type TestCertificate } from '../../lib/testing/certificate.js';
import { withClickHouse } from '../../lib/testing/clickhouse.js';
import { testFiles } from '../../lib/testing/test-files.js';
import { type ClickHouse, createClickHouse } from './client.js';
import { eventsTable } from './connect.js';
import { prepareTable } from './prepare-table.js';

const authority = createAuthority();
const file = testFiles('sluice-clickhouse-tls-');
const ca = file('ca.pem', authority.ca);

/** Runs `use` with the address of a proxy that shows this certificate. */
async function behindTls(
  target: string,
  certificate: TestCertificate,
  use: (url: string) => Promise<void>,
): Promise<void> {
  const { hostname, port } = new URL(target);
  const proxy = createServer(certificate, (socket) => {
    const inner = connect(Number(port), hostname);
    inner.on('error', () => socket.destroy());
    socket.on('error', () => inner.destroy());
    socket.pipe(inner).pipe(socket);
  });
  proxy.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  try {
    await use(`https://127.0.0.1:${(proxy.address() as AddressInfo).port}`);
  } finally {
    proxy.close();
  }
}

const clientAt = (clickhouseUrl: string, clickhouseTlsCa: string): ClickHouse =>
  createClickHouse(resolveOptions(clickhouseClientOptions, { clickhouseUrl, clickhouseTlsCa }, {}), silentLogger);

async function failure(url: string, clickhouseTlsCa: string): Promise<string> {
  const clickhouse = clientAt(url, clickhouseTlsCa);
  try {
    await clickhouse.rows('SELECT 1');
    return 'answered';
  } catch (error) {
    return String(error);
  } finally {
    await clickhouse.close();
  }
}

test('the table is made and asked over TLS; whom the CA does not vouch for is refused', async () => {
  await withClickHouse(async (engine) => {
    await behindTls(engine.url, authority.issue(), async (url) => {
      const clickhouse = clientAt(url, ca);
      await prepareTable(clickhouse, eventsTable('tls'));
      assert.equal(await clickhouse.rows('SELECT toString(count()) AS n FROM tls.events'), [{ n: '0' }]);
      await clickhouse.close();
      assert.match(await failure(url, file('other.pem', createAuthority().ca)), /self-signed|unable to/i);
      assert.match(await failure(url, ''), /self-signed|unable to/i);
    });
    await behindTls(engine.url, authority.issue({ days: -1 }), async (url) => {
      assert.match(await failure(url, ca), /expired/);
    });
    await behindTls(engine.url, authority.issue({ names: 'DNS:elsewhere.example' }), async (url) => {
      assert.match(await failure(url, ca), /does not match/);
    });
  });
});

test('a CA for an address without TLS, and a file that is none, are refused', () => {
  for (const [url, file, reason] of [
    ['http://127.0.0.1:1', ca, /--clickhouse-url has no TLS/],
    ['https://127.0.0.1:1', '/nowhere/missing.pem', /--clickhouse-tls-ca: .*ENOENT/],
  ] as const) {
    try {
      clientAt(url, file);
      assert.unreachable('taken');
    } catch (error) {
      assert.instance(error, UsageError);
      assert.match((error as Error).message, reason);
    }
  }
});

test.run();
