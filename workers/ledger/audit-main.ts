/**
 * `sluice audit [--tenant t] [--json]`: the command line of audit.ts and audit-tenant.ts.
 * Exit code 0: everything that was accepted is accounted for. 1: it is not, or could not be looked at.
 */
import { jetstreamManager } from '@nats-io/jetstream';
import { auditOptions, parseArgv, resolveOptions } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { createLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { natsAt } from '../../lib/nats-login.js';
import { createProgressLine } from '../../lib/progress-line.js';
import { tenantIdPattern } from '../../lib/subjects.js';
import { tableLines } from '../../lib/table.js';
import { print } from '../../lib/terminal.js';
import { createClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import type { TableTarget } from '../clickhouse/schema/index.js';
import { createClickHouseBlockStore } from '../loader/block-store.js';
import { readDeadLedger } from '../loader/dead-scan.js';
import { type Audit, audit } from './audit.js';
import type { Ledger } from './audit-options.js';
import { auditTenant, type TenantAudit } from './audit-tenant.js';
import { endWith } from './end-command.js';
import { type Fault, maxFaults } from './faults.js';
import { createLedgerStore } from './ledger-store.js';
import { lookAtLog } from './shard-states.js';

const count = (n: number): string => n.toLocaleString('en');

function faultLines(faults: readonly Fault[], faultCount: number): string[] {
  const lines = faults.map((fault) => {
    const where = fault.block === undefined ? '' : ` block ${fault.block}`;
    const events = fault.difference === undefined ? '' : ` [${fault.difference > 0 ? '+' : ''}${fault.difference}]`;
    if (fault.shard === undefined) return `FAULT ${fault.message}`;
    return `FAULT shard ${fault.shard}${where}, messages ${fault.lo} to ${fault.hi}${events}: ${fault.message}`;
  });
  if (faultCount > maxFaults) lines.push(`… and ${count(faultCount - maxFaults)} more`);
  return lines;
}

const columns = ['accepted', 'stored', 'duplicate', 'dead', 'inFlight', 'erased'] as const;
const titles = ['accepted', '= stored', '+ duplicate', '+ dead-lettered', '+ in flight', '+ erased'] as const;

const cells = (ledger: Ledger): string[] => columns.map((name) => count(ledger[name]));

const verdict = (difference: number, faultCount: number): string =>
  faultCount === 0
    ? 'difference 0: every accepted event is accounted for'
    : `difference ${count(difference)}: ${count(faultCount)} fault${faultCount === 1 ? '' : 's'}`;

function textOf(result: Audit): string[] {
  const rows = result.shards.map((shard) => [
    `${shard.shard}`,
    `${shard.generation}${shard.live ? '' : ' (gone)'}`,
    ...cells(shard),
    count(shard.blocks),
    count(shard.messages),
  ]);
  const head = ['shard', 'stream', ...titles, 'blocks', 'messages in the log'];
  return [
    ...tableLines([head, ...rows, ['all', '', ...cells(result.total)]], 2),
    ...result.shards
      .filter(({ dropped }) => dropped > 0)
      .map(
        ({ shard, dropped }) =>
          `shard ${shard}: the first ${count(dropped)} blocks are gone with their days (retention)`,
      ),
    ...result.notes.map((note) => `note: ${note}`),
    ...faultLines(result.faults, result.faultCount),
    verdict(result.difference, result.faultCount),
  ];
}

const tenantText = (result: TenantAudit): string[] => [
  ...tableLines([
    ['tenant', '', ...titles, 'copies in the log'],
    [result.tenant, '', ...cells(result.total), count(result.copies)],
  ]),
  ...faultLines(result.faults, result.faultCount),
  verdict(result.difference, result.faultCount),
];

async function main(): Promise<number> {
  const config = resolveOptions(auditOptions, parseArgv(process.argv.slice(2), auditOptions));
  if (config.tenant !== '' && !tenantIdPattern.test(config.tenant)) {
    throw new UsageError(`"${config.tenant}" is not a tenant id: see \`sluice tenant list\`.`);
  }
  const logger = createLogger('audit', config.logLevel);
  const nc = await connectNats({ ...natsAt(config), name: 'sluice audit', logger, timeoutMs: 5_000 });
  const clickhouse = createClickHouse(config, logger);
  const progress = createProgressLine(process.stderr);
  try {
    const jsm = await jetstreamManager(nc, { checkAPI: false });
    const target = eventsTable(config.clickhouseDatabase, config.clickhouseEngine as TableTarget['engine']);
    const found = await lookAtLog(nc, jsm, createClickHouseBlockStore(clickhouse, target));
    if (found === undefined) throw new UsageError('No gateway has ever started here: there is nothing to audit.');
    const options = {
      nc,
      jsm,
      store: createLedgerStore(clickhouse, target),
      ...found,
      dead: await readDeadLedger({ nc, jsm, tenant: config.tenant || undefined }),
      retention: config.retentionDays > 0,
      progress: progress.show,
      logger,
    };
    const result = config.tenant === '' ? await audit(options) : await auditTenant(options, config.tenant);
    progress.clear();
    const lines = config.json ? [JSON.stringify(result)] : 'tenant' in result ? tenantText(result) : textOf(result);
    print(`${lines.join('\n')}\n`);
    return result.faultCount === 0 ? 0 : 1;
  } finally {
    progress.clear();
    await clickhouse.close();
    await nc.close();
  }
}

endWith(main());
