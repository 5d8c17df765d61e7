/**
 * The commands of Sluice, `node dist/cli/sluice.js` of an installation. This file knows their names, flags and help; what they do is elsewhere.
 *
 *   sluice.mjs       runs this file from a checkout, and installs packages when they are missing
 *   build.mjs        `npm run build`
 *   up/              the whole stack on one machine
 *   roles.ts         which file is which process; run.ts runs one in the foreground
 *   nats-server.ts   finding and installing nats-server
 *   stack-file.ts    where the running stack is
 *   query.ts  tenant.ts  setup.ts  doctor.ts  settings.ts   one command each
 *   demo/            `sluice demo`
 *   write-docs.ts    `npm run docs`
 *   test.ts          `sluice test`: test-build.ts compiles, test-suites.ts says which files, test-file.ts runs one; test-versions.ts on every Node that node-versions.ts names; test-long.ts what takes longer
 */
import '../lib/closed-pipes.js';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import {
  allOptions,
  auditOptions,
  embeddedOptions,
  eraseOptions,
  flagOf,
  gatewayOptions,
  type OptionTable,
  refuseUnknownVariables,
  resolveOptions,
  setupOptions,
  shardsOptions,
  stackOptions,
  upOptions,
  whereOptions,
  workerOptions,
} from '../lib/config/index.js';
import { UsageError } from '../lib/errors.js';
import { print } from '../lib/terminal.js';
import { doctor } from './doctor.js';
import { ensureNatsServer } from './nats-server.js';
import { query } from './query.js';
import { type Entry, isBuilt, root } from './roles.js';
import { run } from './run.js';
import { settings } from './settings.js';
import { setup } from './setup.js';
import { addresses } from './stack-file.js';
import * as tenant from './tenant.js';
import { up } from './up/index.js';

const say = (line: string): void => {
  print(`${line}\n`, process.stderr);
};

/** Shows a table of options in a command's help; the values are parsed and checked by lib/config. */
function withOptions(command: Command, table: OptionTable): Command {
  for (const [name, spec] of Object.entries(table)) {
    const value = spec.kind === 'bool' ? '[true|false]' : `<${spec.kind}>`;
    const shown = Array.isArray(spec.default) ? spec.default.join(',') : String(spec.default);
    const option = new Option(`${flagOf(name)} ${value}`, spec.help);
    option.defaultValueDescription = shown === '' ? 'none' : shown;
    if (shown !== '') option.description = `${spec.help} (default: ${shown})`;
    command.addOption(option);
  }
  return command.addHelpText(
    'after',
    '\nEvery option can be given as a variable too: --max-batch-bytes is SLUICE_MAX_BATCH_BYTES.',
  );
}

/** What is built leaves these out: they need the sources and the development dependencies. */
const ofDevelopment: readonly (readonly [Entry, string])[] = [
  ['bench', 'run benchmarks (npm run bench)'],
  ['chaos', 'make faults under load and check what is stored (npm run chaos)'],
  ['interop', 'run clients of other languages and check what is stored (npm run interop)'],
  ['hostile', 'attack a real gateway and measure the cost (npm run hostile)'],
  ['test', 'run the tests (npm test)'],
  ['test-long', 'run the long tests (npm run test:long)'],
  ['test-versions', 'run the tests on Node 20, 22 and 24 (npm run test:versions)'],
];

/** A command that is a separate process and needs nats-server: it gets its arguments unchanged. */
function passThrough(program: Command, entry: Entry, description: string): void {
  program
    .command(entry)
    .description(description)
    .allowUnknownOption()
    .allowExcessArguments()
    .helpOption(false)
    .argument('[arguments...]', 'arguments of the command; see its --help')
    .action(async () => {
      ensureNatsServer(say);
      process.exitCode = await run(entry, process.argv.slice(process.argv.indexOf(entry) + 1));
    });
}

/** A role: options for the help; the process gets its arguments unchanged. */
function role(program: Command, name: string, entry: Entry, description: string, table: OptionTable): void {
  withOptions(program.command(name).description(description), table).action(async () => {
    process.exitCode = await run(entry, process.argv.slice(process.argv.indexOf(name) + 1));
  });
}

/** A command that talks to the running stack, in a separate process that gets the stack's addresses. */
function ofTheStack(command: Command, entry: Entry, table: OptionTable, description: string): void {
  withOptions(command.description(description), { data: stackOptions.data, ...table }).action(async () => {
    const { data, ...given } = command.opts<Record<string, string>>();
    const known = Object.keys(stackOptions).map((name) => [name, name === 'data' ? data : given[name]]);
    const config = resolveOptions(stackOptions, Object.fromEntries(known));
    const found = addresses(config);
    // What the environment gives stays there: flags show in `ps`.
    const nats = { natsUrl: found.nats, natsCredentials: found.natsCredentials };
    const clickhouse = { clickhouseUrl: found.clickhouse, clickhousePasswordFile: found.clickhousePasswordFile };
    const flags = Object.entries({
      ...given,
      ...(config.natsUrl === '' ? nats : {}),
      ...(config.clickhouseUrl === '' ? clickhouse : {}),
    });
    process.exitCode = await run(entry, [
      ...flags.map(([name, value]) => `${flagOf(name)}=${String(value)}`),
      ...command.args,
    ]);
  });
}

function build(): Command {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const program = new Command('sluice')
    .description(
      'Takes events over gRPC, gRPC-Web and Connect, keeps them in NATS JetStream, loads ClickHouse exactly once.',
    )
    .version(version)
    .showHelpAfterError('(use --help for more)')
    // It shows what was typed, or pasted.
    .configureOutput({ outputError: (text) => print(text, process.stderr) })
    .addHelpText(
      'after',
      `
Examples:
  npm start                                        the whole stack on this machine, in ./sluice-data
  npm start -- --workers 2 --port 8080
  npx sluice doctor                                checks that everything is installed
  npx sluice tenant add acme                       makes a key
  npx sluice query "SELECT type, count() FROM events GROUP BY type"
  npm run demo                                     sends events through it and shows what arrived
`,
    );

  addRoles(program);
  addQuery(program);
  addTenants(program);
  addLedger(program);
  passThrough(program, 'demo', 'send events through the stack and show what arrived (npm run demo)');
  if (!isBuilt) for (const [entry, description] of ofDevelopment) passThrough(program, entry, description);
  program
    .command('config')
    .description('list every setting: flag, variable, default, meaning')
    .action(() => settings());
  return program;
}

/** Everything on this machine, or one process of it. */
function addRoles(program: Command): void {
  withOptions(
    program.command('up').description('run everything on this machine; Ctrl-C drains (npm start)'),
    upOptions,
  ).action(async (flags) => {
    process.exitCode = await up(resolveOptions(upOptions, flags));
  });
  withOptions(
    program.command('doctor').description('check that everything that `up` needs is there'),
    upOptions,
  ).action(async (flags) => {
    process.exitCode = (await doctor(resolveOptions(upOptions, flags))) ? 0 : 1;
  });
  withOptions(
    program
      .command('setup')
      .description('make the streams and buckets of a new installation; gateways then need no right to make them'),
    setupOptions,
  ).action((flags) => setup(resolveOptions(setupOptions, flags)));
  role(program, 'gateway', 'gateway', 'run one gateway', gatewayOptions);
  role(program, 'worker', 'worker', 'run one worker', workerOptions);
  role(program, 'clickhouse', 'clickhouse', 'run the embedded ClickHouse', embeddedOptions);
}

function addQuery(program: Command): void {
  withOptions(
    program
      .command('query')
      .description('run a statement in ClickHouse and print the answer as a table')
      .argument('<statement>', 'e.g. "SELECT type, count() FROM events GROUP BY type"')
      .option('--format <name>', 'format of the answer: PrettyCompact, JSONEachRow, CSV, TSV …', 'PrettyCompact'),
    stackOptions,
  ).action((statement: string, flags: { format: string }) =>
    query(resolveOptions(stackOptions, { ...flags }), statement, flags.format),
  );
}

function addTenants(program: Command): void {
  const tenants = program.command('tenant').description('make, list and revoke the keys of customers');
  withOptions(
    tenants
      .command('add')
      .description('make a key for a tenant and print it')
      .argument('<tenant>', 'a-z, 0-9 and -, at most 63, e.g. acme-shop')
      .option('--note <text>', 'what the key is for', ''),
    stackOptions,
  ).action((name: string, flags: { note: string }) =>
    tenant.add(resolveOptions(stackOptions, { ...flags }), name, flags.note),
  );
  withOptions(tenants.command('list').description('show all keys, without their secrets'), stackOptions).action(
    (flags) => tenant.list(resolveOptions(stackOptions, flags)),
  );
  withOptions(
    tenants.command('revoke').description('revoke a key everywhere').argument('<key id>', 'as `tenant list` shows it'),
    stackOptions,
  ).action((keyId: string, flags: object) => tenant.revoke(resolveOptions(stackOptions, { ...flags }), keyId));
}

/** What operators ask of events and of shards, and do with them. */
function addLedger(program: Command): void {
  ofTheStack(
    program.command('erase'),
    'erase',
    eraseOptions,
    "erase a user's events: erase --tenant <id> --user-id <id>",
  );
  ofTheStack(
    program.command('audit'),
    'audit',
    auditOptions,
    'check that accepted = stored + duplicate + dead-lettered + in flight, from log and ClickHouse; exit code 1 when it is not',
  );
  ofTheStack(
    program.command('where').argument('<id>', 'an event_id or a batch_id'),
    'where',
    whereOptions,
    'show what became of an event or a batch: in the log, stored in which block, dead-lettered and why, or unknown',
  );
  ofTheStack(
    program
      .command('shards')
      .argument(
        '[action]',
        'accept: load a stream that was made again; mend: publish again what a stopped stream holds and ClickHouse lacks; ' +
          'rebuild: write the number of shards again from the streams, after it was edited or lost',
      )
      .argument('[shard]', 'the number of the shard, for accept and mend'),
    'shards',
    shardsOptions,
    'show the shards; --set N drains the log and changes their number',
  );
}

try {
  refuseUnknownVariables(Object.values(allOptions));
  await build().parseAsync(process.argv.slice(2), { from: 'user' });
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  say(error.message);
  process.exitCode = 1;
}
