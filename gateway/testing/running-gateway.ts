/**
 * A whole gateway for one test: real nats-server, real core, real sockets, one tenant with a key.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import { type GatewayConfig, gatewayOptions, resolveOptions } from '../../lib/config/index.js';
import { silentLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { addTenant } from '../../lib/tenants.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { until } from '../../lib/testing/until.js';
import { type Gateway, startGateway } from '../gateway.js';

export interface RunningGateway {
  readonly gateway: Gateway;
  readonly port: number;
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  readonly nats: TestNats;
  readonly tenant: string;
  readonly key: string;
  readonly keyId: string;
  /** `authorization: Bearer <key>` */
  readonly headers: { readonly authorization: string };
}

const tenant = 'acme';

/** Settings of a test gateway: defaults except for what is given. */
export function testConfig(natsUrl: string, settings: Partial<GatewayConfig> = {}): GatewayConfig {
  const base = resolveOptions(gatewayOptions, { port: 0, metricsPort: 0, natsUrl, drainGrace: '2s' }, {});
  return { ...base, ...settings };
}

/** Runs `use` with a ready gateway, and drains it, also after an error. */
export async function withGateway<T>(
  settings: Partial<GatewayConfig>,
  use: (running: RunningGateway) => Promise<T>,
): Promise<T> {
  return withNats(async (nats) => {
    const { key, keyId } = await addTenant(nats.nc, { tenant });
    const connection: Promise<NatsConnection> = connectNats({
      servers: nats.url,
      name: 'gateway',
      logger: silentLogger,
    });
    const gateway = await startGateway(testConfig(nats.url, settings), { nats: connection, logger: silentLogger });
    try {
      await until('the gateway is ready', () => gateway.ready);
      const url = `${settings.tlsCert === undefined ? 'http' : 'https'}://127.0.0.1:${gateway.port}`;
      const headers = { authorization: `Bearer ${key}` };
      return await use({ gateway, port: gateway.port, url, nats, tenant, key, keyId, headers });
    } finally {
      await gateway.drain();
      await (await connection).close();
    }
  });
}

type WithGateway = typeof withGateway;

/** Registers a test twice: with the gateway's own handler for the hot path, and with the RPC library for all. */
export function onBothPaths(
  test: (name: string, body: () => Promise<void>) => void,
  name: string,
  body: (withGateway: WithGateway) => Promise<void>,
): void {
  for (const hotPath of [true, false]) {
    const bound: WithGateway = (settings, use) => withGateway({ hotPath, ...settings }, use);
    test(`${name} (${hotPath ? 'hot path' : 'library'})`, () => body(bound));
  }
}
