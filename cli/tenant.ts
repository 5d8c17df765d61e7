/**
 * `sluice tenant add|list|revoke`.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import type { StackConfig } from '../lib/config/index.js';
import { UsageError } from '../lib/errors.js';
import { silentLogger } from '../lib/logger.js';
import { connectNats } from '../lib/nats.js';
import { natsAt, withoutCredentials } from '../lib/nats-login.js';
import { tableLines } from '../lib/table.js';
import { addTenant, listTenants, revokeKey } from '../lib/tenants.js';
import { print } from '../lib/terminal.js';
import { addresses } from './stack-file.js';

async function withConnection(config: StackConfig, use: (nc: NatsConnection) => Promise<void>): Promise<void> {
  const { nats, natsCredentials } = addresses(config);
  const nc = await connectNats({
    ...natsAt({ ...config, natsUrl: nats, natsCredentials }),
    name: 'sluice tenant',
    logger: silentLogger,
    timeoutMs: 5_000,
  }).catch((error) => {
    if (error instanceof UsageError) throw error;
    throw new UsageError(
      `No NATS answers at ${withoutCredentials(nats)} (${String(error)}): \`npm start\` runs one, --data or --nats-url says where it is.`,
    );
  });
  try {
    await use(nc);
  } finally {
    await nc.close();
  }
}

export const add = (config: StackConfig, tenant: string, note: string): Promise<void> =>
  withConnection(config, async (nc) => {
    const { key, keyId } = await addTenant(nc, { tenant, note });
    process.stderr.write(`Key ${keyId} of ${tenant}. It is shown this once; only its hash is kept.\n`);
    process.stdout.write(`${key}\n`);
  });

export const list = (config: StackConfig): Promise<void> =>
  withConnection(config, async (nc) => {
    const rows = (await listTenants(nc)).map((record) => [
      record.tenant,
      record.keyId,
      record.revokedAt === undefined ? 'active' : `revoked ${record.revokedAt.slice(0, 19)}Z`,
      `${record.createdAt.slice(0, 19)}Z`,
      record.note,
    ]);
    const table = [['TENANT', 'KEY ID', 'STATE', 'CREATED', 'NOTE'], ...rows];
    for (const line of tableLines(table, 5)) print(`${line}\n`);
  });

export const revoke = (config: StackConfig, keyId: string): Promise<void> =>
  withConnection(config, async (nc) => {
    await revokeKey(nc, keyId);
    process.stderr.write(
      `Key ${keyId} is revoked: gateways refuse it from now on, and end the streams that it opened.\n`,
    );
  });
