/**
 * `sluice erase --tenant T --user-id U`: the command line of erase.ts. Prints one JSON line: rows, messages, unloaded.
 * Exit code 0: everything is gone. 2: messages that were not loaded yet may hold events of the user; run it again.
 */
import { jetstreamManager } from '@nats-io/jetstream';
import { eraseOptions, parseArgv, resolveOptions } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { createLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { natsAt } from '../../lib/nats-login.js';
import { readShards } from '../../lib/shard-number.js';
import { createClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import type { TableTarget } from '../clickhouse/schema/index.js';
import { endWith } from './end-command.js';
import { eraseUser } from './erase.js';
import { shardsToLookAt } from './shard-states.js';

async function main(): Promise<number> {
  const config = resolveOptions(eraseOptions, parseArgv(process.argv.slice(2), eraseOptions));
  if (config.tenant === '' || config.userId === '') {
    throw new UsageError('Name the user: sluice erase --tenant <tenant> --user-id <user id>.');
  }
  const logger = createLogger('erase', config.logLevel);
  const nc = await connectNats({ ...natsAt(config), name: 'sluice erase', logger, timeoutMs: 5_000 });
  const clickhouse = createClickHouse(config, logger);
  try {
    const jsm = await jetstreamManager(nc, { checkAPI: false });
    const erasure = await eraseUser({
      tenant: config.tenant,
      userId: config.userId,
      clickhouse,
      target: eventsTable(config.clickhouseDatabase, config.clickhouseEngine as TableTarget['engine']),
      jsm,
      shards: await shardsToLookAt(jsm, await readShards(nc)),
      waitMs: config.eraseWait,
      logger,
    });
    process.stdout.write(`${JSON.stringify(erasure)}\n`);
    return erasure.unloaded > 0 ? 2 : 0;
  } finally {
    await clickhouse.close();
    await nc.close();
  }
}

endWith(main());
