/**
 * `sluice clickhouse`: the real ClickHouse engine in a process of its own, for laptops and tests.
 *
 *   http.ts        ClickHouse's HTTP interface, as far as Sluice uses it
 *   request-body.ts  bodies, within bounds
 *   admission.ts   what is run in place of a statement
 *   responses.ts   answers as ClickHouse writes them
 *   guard.ts       who may send statements
 *   refused.ts     statements that are not run
 *   column-texts.ts  table functions whose structure hides a statement
 *   held-answers.ts  answers that are not read yet
 *   rights.ts      what statements may do: the engine's users, and the view of the spool
 *   statement.ts   what happens to a statement on the way (data, settings, parameters)
 *   engine.ts      the engine on one data folder
 *   sessions.ts    its sessions
 *   session-places.ts  which statement runs on which session, and which wait
 *   folder-lock.ts  whether another process has the folder
 *   engine-error.ts  its errors
 *   young-garbage.ts  what large bodies leave behind
 */

import { rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { type EmbeddedConfig, embeddedOptions, parseArgv, resolveOptions } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { createLogger } from '../../lib/logger.js';
import { makeFolder, makePrivateFolder } from '../../lib/make-folder.js';
import { onParentGone } from '../../lib/parent-gone.js';
import { readSecret } from '../../lib/secret-file.js';
import { GiB } from '../../lib/units.js';
import { openEngine } from './engine.js';
import { createEmbeddedHttp } from './http.js';

const maxBodyBytes = GiB;
/** How long a close waits for the statements that run. */
const closeWithinMs = 10_000;

/** Undefined: none is asked for. */
const passwordOf = ({ clickhousePasswordFile: file }: EmbeddedConfig): string | undefined =>
  file === '' ? undefined : readSecret(resolve(file), '--clickhouse-password-file');

async function main(): Promise<void> {
  const config = resolveOptions(embeddedOptions, parseArgv(process.argv.slice(2), embeddedOptions));
  const logger = createLogger('clickhouse', config.logLevel);
  const password = passwordOf(config);
  if (password === undefined) logger.warn('no password is asked for: every user of this machine may send statements');
  const folder = resolve(config.clickhouseData);
  // The engine writes a cache of format schemas to the folder that it runs in.
  process.umask(0o077);
  makePrivateFolder(folder);
  process.chdir(folder);
  const spoolFolder = join(folder, 'spool');
  const engine = await openEngine(join(folder, 'store'), { spoolFolder, rightsFolder: join(folder, 'rights') });
  // What a killed process left behind was never acknowledged to anybody.
  rmSync(spoolFolder, { recursive: true, force: true });
  makeFolder(spoolFolder);
  const server = createEmbeddedHttp({
    engine,
    spoolFolder,
    guard: { host: config.host, password },
    logger,
    maxBodyBytes,
  });

  let answering = 0;
  server.on('request', (_request, response) => {
    answering++;
    response.once('close', () => answering--);
  });

  async function close(why: string): Promise<void> {
    logger.info({ why, answering }, 'closing');
    server.close();
    const until = Date.now() + closeWithinMs;
    while (answering > 0 && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 10));
    // What still runs dies with the process: an INSERT is there whole or not at all (LOAD-1).
    if (answering > 0) logger.warn({ answering }, 'statements still run');
    else await engine.close();
    logger.info('closed');
    process.exit(0);
  }

  let ending = false;
  const end = (why: string): void => {
    if (ending) return;
    ending = true;
    void close(why);
  };
  process.on('SIGTERM', () => end('SIGTERM'));
  process.on('SIGINT', () => end('SIGINT'));
  onParentGone(() => end('the parent process is gone'));

  server.on('error', (error: NodeJS.ErrnoException) => {
    const busy = error.code === 'EADDRINUSE';
    process.stderr.write(
      busy
        ? `Port ${config.clickhousePort} is taken: end what listens there, or give --clickhouse-port another.\n`
        : `${String(error)}\n`,
    );
    process.exit(1);
  });
  server.listen(config.clickhousePort, config.host, () => {
    const { port } = server.address() as AddressInfo;
    logger.info({ host: config.host, port, data: folder, version: engine.version }, 'ready');
    process.send?.({ ready: true, port });
  });
}

main().catch((error) => {
  process.stderr.write(`${error instanceof UsageError ? error.message : String((error as Error).stack ?? error)}\n`);
  process.exit(1);
});
