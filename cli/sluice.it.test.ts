/** The command line: help, settings, and what is said of mistakes. */
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { allOptions, flagOf, variableOf } from '../lib/config/index.js';
import { checkout, command, sluice } from './testing/running-stack.js';

const commands = [
  'up',
  'doctor',
  'gateway',
  'worker',
  'clickhouse',
  'query',
  'tenant',
  'erase',
  'demo',
  'bench',
  'config',
];

test('every command has help, which ends with 0', async () => {
  // Those of development are in a checkout alone.
  const all = await sluice(['--help'], {}, checkout);
  assert.is(all.code, 0);
  for (const name of commands) assert.match(all.out, new RegExp(`^ {2}${name}\\b`, 'm'));
  const words = [...commands.map((name) => [name]), ...['add', 'list', 'revoke'].map((name) => ['tenant', name])];
  // Two at a time: each is a process.
  for (let i = 0; i < words.length; i += 2) {
    await Promise.all(
      words.slice(i, i + 2).map(async (name) => {
        const { code, out, err } = await sluice([...name, '--help'], {}, name.includes('bench') ? checkout : undefined);
        assert.is(code, 0, `${name}: ${err}`);
        assert.match(out, /usage/i, name.join(' '));
      }),
    );
  }
});

test('compiled code is kept only in a folder that no other user can write to', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-cache-'));
  const cache = join(folder, `tsx-${process.geteuid?.()}`);
  const help = async (): Promise<number> => {
    const { code, err } = await sluice(['--help'], { TMPDIR: folder }, checkout);
    assert.is(code, 0, err);
    return readdirSync(cache).length;
  };
  try {
    assert.ok((await help()) > 0);
    assert.is(statSync(cache).mode & 0o777, 0o700);
    // As another user would have made it, to put a program in.
    rmSync(cache, { recursive: true });
    mkdirSync(cache);
    chmodSync(cache, 0o777);
    assert.is(await help(), 0, 'neither read nor written');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('an unknown flag, command and variable are refused by name', async () => {
  const refused = async (args: string[], message: RegExp, variables: Record<string, string> = {}) => {
    const { code, out, err } = await sluice(args, variables);
    assert.is(code, 1, args.join(' '));
    assert.match(err, message);
    assert.is(out, '');
    assert.not.match(err, /^ {4}at /m);
  };
  await Promise.all([
    refused(['up', '--prot', '1'], /--prot/),
    refused(['gateway', '--prot', '1'], /--prot/),
    refused(['upp'], /upp/),
  ]);
  await Promise.all([
    refused(['up', '--port', 'many'], /^--port: "many" is not a whole number.*\n$/),
    refused(['worker', '--block-rows', '0'], /--block-rows: "0" is not between 1/),
    refused(['config'], /^SLUICE_PROT is not a setting of Sluice; `sluice config` lists them all\.\n$/, {
      SLUICE_PROT: '1',
    }),
  ]);
  await refused(
    ['query', 'SELECT 1', '--clickhouse-url', 'http://127.0.0.1:1'],
    /^No ClickHouse answers at .*npm start.*\n$/,
  );
  // Those of another installation may be at the usual addresses.
  await refused(
    ['tenant', 'list', '--data', '/nonexistent'],
    /^No stack runs on the folder \/nonexistent: .*--nats-url\.\n$/,
  );
  await refused(['query', 'SELECT 1', '--data', '/nonexistent'], /^No stack runs on .*--clickhouse-url\.\n$/);
  await refused(['audit', '--data', '/nonexistent'], /^No stack runs on /);
  await refused(['tenant', 'list', '--nats-url', '127.0.0.1:1'], /^No NATS answers at .*npm start.*\n$/);
});

test('a reader that has seen enough ends the command without a word', async () => {
  for (const line of ['config', 'interop --help', '--help']) {
    const { code, out, err } = await command('bash', [
      '-c',
      `set -o pipefail; node cli/sluice.mjs ${line} | head -c 1; echo " $?"`,
    ]).ended;
    assert.equal([code, err], [0, ''], line);
    assert.match(out, /^[\s\S] 0\n$/, line);
  }
});

test('config lists every setting with flag, variable and meaning', async () => {
  const { code, out } = await sluice(['config']);
  assert.is(code, 0);
  for (const table of Object.values(allOptions)) {
    for (const [name, { help }] of Object.entries(table)) {
      for (const text of [flagOf(name), variableOf(name), help]) assert.ok(out.includes(text), text);
    }
  }
});

test.run();
