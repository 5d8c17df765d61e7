/**
 * `sluice where <event_id|batch_id> [--tenant t] [--day d] [--json]`: the command line of where.ts.
 * Exit code 0: found. 2: nothing is known of it. 1: could not be looked for.
 */
import { jetstreamManager } from '@nats-io/jetstream';
import { parseArgv, resolveOptions, whereOptions } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { createLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { natsAt } from '../../lib/nats-login.js';
import { createProgressLine } from '../../lib/progress-line.js';
import { tenantIdPattern } from '../../lib/subjects.js';
import { listTenants } from '../../lib/tenants.js';
import { print } from '../../lib/terminal.js';
import { isDate } from '../../lib/timestamp.js';
import { createClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import type { TableTarget } from '../clickhouse/schema/index.js';
import { createClickHouseBlockStore } from '../loader/block-store.js';
import { endWith } from './end-command.js';
import type { Letter } from './id-in-log.js';
import { createLedgerStore, type StoredRows } from './ledger-store.js';
import { lookAtLog } from './shard-states.js';
import { type JudgedCopy, type Whereabouts, where } from './where.js';

/** Both ids are at most 64 bytes. */
const maxIdBytes = 64;

const time = (ms: number | undefined): string => (ms === undefined ? 'at a time unknown' : new Date(ms).toISOString());

const blockText = (row: Pick<StoredRows, 'block' | 'shard' | 'lo' | 'hi' | 'generation' | 'day'>): string =>
  `block ${row.block} of shard ${row.shard} (messages ${row.lo} to ${row.hi} of stream ${row.generation}, day ${row.day})`;

function copyText(copy: JudgedCopy): string[] {
  const of = copy.eventIndex === undefined ? '' : `event ${copy.eventIndex} of `;
  const state = {
    stored: () =>
      `stored: ${copy.rows?.rows} row${copy.rows?.rows === 1 ? '' : 's'} in ${copy.rows === undefined ? '' : blockText(copy.rows)}`,
    duplicate: () =>
      `left out as a duplicate: another copy of the batch, with the same event_id${copy.elsewhere === 1 ? '' : 's'}, is stored` +
      (copy.storedBy === undefined ? '' : ` in ${blockText(copy.storedBy)}`),
    'wrongly left out': () =>
      `left out as a duplicate, and not stored: the rows of batch ${copy.batchId} are other events. A loader of an older version did ` +
      'this to a batch id that was used again. Publish these events again, under another batch id',
    dead: () => `dead-lettered: ${copy.reason}`,
    'in flight': () => 'in the log, not in ClickHouse yet',
    'not loaded': () =>
      'in the log, and not in ClickHouse: the log lost its end and gave this message the sequence of one that was loaded',
    gone: () => 'loaded, but without a row now: erased since (`sluice erase`), or lost: `sluice audit` tells which',
  }[copy.state]();
  return [
    `${of}batch ${copy.batchId} of ${copy.tenant}, ${copy.events} event${copy.events === 1 ? '' : 's'}, attempt ${copy.attempt || 'unknown'}`,
    `  accepted  ${time(copy.receivedAtMs)} by the gateway, ${time(copy.loggedAtMs)} by the log`,
    `  log       ${copy.stream}, sequence ${copy.sequence}, place ${copy.index} in the message`,
    `  ${state}`,
    ...(copy.stopped === undefined ? [] : [`  shard ${copy.shard} is not loaded: ${copy.stopped}`]),
    ...(copy.state === 'stored' && copy.reason !== undefined
      ? [`  some of its events are dead-lettered: ${copy.reason}`]
      : []),
    ...(copy.state === 'stored' && copy.elsewhere > 0
      ? [`  ${copy.elsewhere} of its events are left out as duplicates: another copy of the batch has stored them`]
      : []),
    ...(copy.state !== 'dead' && copy.state !== 'in flight' && copy.missing.length > 0 && copy.eventIndex === undefined
      ? [`  not stored: ${copy.missing.join(', ')}${copy.missing.length < 10 ? '' : ' …'}`]
      : []),
  ];
}

const rowText = (row: StoredRows): string[] => [
  `batch ${row.batchId} of ${row.tenant}, attempt ${row.attempt || 'unknown'}`,
  `  accepted  ${time(row.receivedAtMs)} by the gateway; its message has left the log`,
  `  stored: ${row.rows} row${row.rows === 1 ? '' : 's'} in ${blockText(row)}`,
];

const letterText = (letter: Letter): string[] => [
  letter.batchId === ''
    ? `a message of ${letter.tenant} that is no batch`
    : `batch ${letter.batchId} of ${letter.tenant}`,
  `  log       shard ${letter.shard}, sequence ${letter.sequence} of stream ${letter.generation}, place ${letter.index}; it has left the log`,
  `  dead-lettered ${time(letter.timeMs)}: ${letter.reason} (DEAD, sequence ${letter.deadSequence})`,
];

function unknownText(id: string, tenant: string, day: string): string[] {
  return [
    `${id} is not known, neither as an event_id nor as a batch_id:`,
    '  - it was never accepted (a client that has no acknowledgement must send again), or',
    '  - it was stored and has gone since: erased, or its day dropped by retention, or',
    '  - it was accepted, and the log lost it before it was loaded: a stream removed or purged, or an older copy put back, or',
    ...(tenant === '' ? [] : [`  - it is not of ${tenant}: try without --tenant, or`]),
    ...(day === '' ? [] : [`  - it was stored on another day than ${day}: try without --day, or`]),
    '  - it was refused: the answer names an event that breaks the contract, and the gateway does not keep it.',
  ];
}

function textOf(found: Whereabouts, tenant: string, day: string): string[] {
  if (found.kind === 'unknown') return unknownText(found.id, tenant, day);
  return [
    ...(found.contents > 1
      ? [`batch id ${found.id} holds ${found.contents} different sets of events; they are told apart by event_id`]
      : []),
    ...found.copies.flatMap(copyText),
    ...found.rows.flatMap(rowText),
    ...found.dead.flatMap(letterText),
    ...(found.more ? ['… and more copies'] : []),
  ];
}

async function main(): Promise<number> {
  const words = process.argv.slice(2);
  const id = words.pop();
  if (id === undefined || id === '' || id.startsWith('--')) {
    throw new UsageError('Say what to look for: sluice where <event_id or batch_id>.');
  }
  if (Buffer.byteLength(id) > maxIdBytes) {
    throw new UsageError(`Event and batch ids have at most ${maxIdBytes} bytes; this is longer.`);
  }
  const config = resolveOptions(whereOptions, parseArgv(words, whereOptions));
  const { tenant, day } = config;
  if (tenant !== '' && !tenantIdPattern.test(tenant)) {
    throw new UsageError(`"${tenant}" is not a tenant id: see \`sluice tenant list\`.`);
  }
  if (day !== '' && !isDate(day)) {
    throw new UsageError(`--day: "${day}" is not a day such as 2026-01-31.`);
  }
  const logger = createLogger('where', config.logLevel);
  const nc = await connectNats({ ...natsAt(config), name: 'sluice where', logger, timeoutMs: 5_000 });
  const clickhouse = createClickHouse(config, logger);
  const progress = createProgressLine(process.stderr);
  try {
    const jsm = await jetstreamManager(nc, { checkAPI: false });
    const target = eventsTable(config.clickhouseDatabase, config.clickhouseEngine as TableTarget['engine']);
    const inLog = await lookAtLog(nc, jsm, createClickHouseBlockStore(clickhouse, target));
    if (inLog === undefined) throw new UsageError('No gateway has ever started here: there is nothing to look for.');
    for (const problem of inLog.problems) logger.warn(problem);
    const tenants = tenant === '' ? [...new Set((await listTenants(nc)).map((record) => record.tenant))] : [tenant];
    const found = await where(
      {
        nc,
        jsm,
        store: createLedgerStore(clickhouse, target),
        ...inLog,
        tenants,
        oneTenant: tenant !== '',
        day: day === '' ? undefined : day,
        progress: progress.show,
        logger,
      },
      id,
    );
    progress.clear();
    const lines = config.json ? [JSON.stringify(found)] : textOf(found, tenant, day);
    print(`${lines.join('\n')}\n`);
    return found.kind === 'unknown' ? 2 : 0;
  } finally {
    progress.clear();
    await clickhouse.close();
    await nc.close();
  }
}

endWith(main());
