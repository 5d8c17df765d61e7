/**
 * `sluice doctor`: checks what `sluice up` needs, a line each, with the fix where something is missing.
 */
import { accessSync, constants, existsSync, rmdirSync, statfsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import type { UpConfig } from '../lib/config/index.js';
import { makeFolder } from '../lib/make-folder.js';
import { GiB } from '../lib/units.js';
import { findNatsServer, natsServerVersion } from './nats-server.js';
import { runningStack } from './stack-file.js';
import { folderProblem } from './up/data-folder.js';
import { lookAtPorts, type PortLook } from './up/index.js';

interface Check {
  readonly what: string;
  /** What was found; throws with what is wrong and the fix. */
  readonly look: () => string | Promise<string>;
}

const minFreeGiB = 2;

function existingParent(folder: string): string {
  return existsSync(folder) ? folder : existingParent(dirname(folder));
}

function checks(config: UpConfig, ports: readonly PortLook[]): Check[] {
  const data = resolve(config.data);
  const running = runningStack(data);
  return [
    {
      what: 'Node',
      look: () => {
        if (Number(process.versions.node.split('.')[0]) < 20)
          throw new Error(`${process.version}: install Node 20 or newer`);
        return process.version;
      },
    },
    {
      what: 'nats-server',
      look: () => {
        const file = findNatsServer();
        if (file === undefined) {
          throw new Error(
            'not found: `npm start` installs it with apt-get where it may; else `apt-get install nats-server`',
          );
        }
        return `${natsServerVersion(file)} at ${file}`;
      },
    },
    {
      what: 'embedded ClickHouse',
      look: () => {
        try {
          const require = createRequire(import.meta.url);
          const file = require.resolve('chdb');
          require('chdb');
          return dirname(file);
        } catch (error) {
          throw new Error(
            `the package chdb does not load (${String(error).split('\n')[0]}): run \`npm ci\`, on Linux with glibc or macOS; ` +
              'elsewhere run the roles one by one, with a ClickHouse server by `sluice worker --clickhouse-url`',
          );
        }
      },
    },
    {
      what: 'data folder',
      look: () => {
        if (running !== undefined) return `${data}, in use by the stack of process ${running.pid}`;
        const problem = folderProblem(config.data);
        if (problem !== undefined) throw new Error(problem);
        try {
          const made = makeFolder(data);
          accessSync(data, constants.W_OK);
          // It leaves no trace.
          for (const folder of made.reverse()) rmdirSync(folder);
        } catch (error) {
          throw new Error(`${data} cannot be written (${(error as Error).message}): give another by --data`);
        }
        return data;
      },
    },
    {
      what: 'free disk',
      look: () => {
        const { bavail, bsize } = statfsSync(existingParent(data));
        const gib = (bavail * bsize) / GiB;
        if (gib < minFreeGiB) throw new Error(`${gib.toFixed(1)} GiB: make room, or give another folder by --data`);
        return `${gib.toFixed(0)} GiB`;
      },
    },
    ...ports.map(({ port, what, problem }) => ({
      what: `port ${port}`,
      look: () => {
        if (problem === undefined) return what;
        if (running === undefined) throw new Error(problem);
        return `${what}, in use while the stack runs`;
      },
    })),
  ];
}

/** Prints a line per check. @returns whether all is well */
export async function doctor(config: UpConfig): Promise<boolean> {
  let well = true;
  for (const { what, look } of checks(config, await lookAtPorts(config))) {
    try {
      process.stdout.write(`✓ ${what.padEnd(20)} ${await look()}\n`);
    } catch (error) {
      well = false;
      process.stdout.write(`✗ ${what.padEnd(20)} ${(error as Error).message}\n`);
    }
  }
  process.stdout.write(well ? '\nAll is well: `npm start`.\n' : '\nMend the lines with ✗ and look again.\n');
  return well;
}
