/**
 * `sluice erase --tenant T --user-id U`: the command line of erase.ts. Prints one JSON line: rows, messages, unloaded.
 * Exit code 0: everything is gone. 2: messages that were not loaded yet may hold events of the user; run it again.
 */
import { parseArgs } from 'node:util';
import { jetstreamManager } from '@nats-io/jetstream';
import { option, resolveOptions, workerOptions } from '../lib/config/index.js';
import { UsageError } from '../lib/errors.js';
import { createLog } from '../lib/log.js';
import { readShards } from '../lib/log-streams.js';
import { connectNats } from '../lib/nats.js';
import { eventsTable } from './connect.js';
import { eraseUser } from './erase.js';
import { connectWarehouse } from './warehouse.js';

const eraseOptions = {
  eraseWait: option.ms(60_000, 'How long to wait until the workers have loaded what is in the log.', { min: 0 }),
};

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { tenant: { type: 'string' }, 'user-id': { type: 'string' }, 'erase-wait': { type: 'string' } },
  });
  if (values.tenant === undefined || values['user-id'] === undefined) {
    throw new UsageError('Say whom: sluice erase --tenant <tenant> --user-id <user id>.');
  }
  const config = resolveOptions(workerOptions);
  const wait = values['erase-wait'];
  const { eraseWait } = resolveOptions(eraseOptions, wait === undefined ? {} : { eraseWait: wait });
  const log = createLog('erase', config.logLevel);
  const nc = await connectNats({ servers: config.natsUrl, name: 'sluice erase', log, timeoutMs: 5_000 });
  const warehouse = connectWarehouse(config, log);
  try {
    const erasure = await eraseUser({
      tenant: values.tenant,
      userId: values['user-id'],
      warehouse,
      target: eventsTable(config.clickhouseDatabase),
      jsm: await jetstreamManager(nc, { checkAPI: false }),
      shards: (await readShards(nc)) ?? 0,
      waitMs: eraseWait,
      log,
    });
    process.stdout.write(`${JSON.stringify(erasure)}\n`);
    return erasure.unloaded > 0 ? 2 : 0;
  } finally {
    await warehouse.close();
    await nc.close();
  }
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`${error instanceof UsageError ? error.message : String(error)}\n`);
    process.exit(1);
  },
);
