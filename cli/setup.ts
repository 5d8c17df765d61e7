/**
 * `sluice setup`: makes what an installation keeps in JetStream, so that gateways need no right to make it. It may run again at any
 * time: it keeps what exists, and makes again what was removed.
 */
import { jetstreamManager } from '@nats-io/jetstream';
import type { SetupConfig } from '../lib/config/index.js';
import { ensureDeadLetters } from '../lib/dead-letters.js';
import { ensureLog } from '../lib/log-streams.js';
import { createLogger } from '../lib/logger.js';
import { connectNats } from '../lib/nats.js';
import { natsAt } from '../lib/nats-login.js';
import { deadStream } from '../lib/subjects.js';
import { ensureTenants } from '../lib/tenants.js';

/** @throws UsageError when what is there cannot be used, or NATS refuses */
export async function setup(config: SetupConfig): Promise<void> {
  const logger = createLogger('setup', config.logLevel);
  const nc = await connectNats({ ...natsAt(config), name: 'sluice setup', logger, timeoutMs: 5_000 });
  try {
    const { shards, replicas, shardMaxBytes, deadLetterBytes } = config;
    const setting = await ensureLog(nc, { shards, replicas, maxBytes: shardMaxBytes, logger });
    await ensureTenants(nc, replicas, logger);
    const jsm = await jetstreamManager(nc, { checkAPI: false });
    await ensureDeadLetters(jsm, { replicas, maxBytes: deadLetterBytes });
    process.stderr.write(
      `The log has ${setting.shards} shards, the stream ${deadStream} for dead letters, and a place for keys.\n`,
    );
  } finally {
    await nc.close();
  }
}
