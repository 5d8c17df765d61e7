/**
 * The real nats-server with deploy/nats.conf: its users and limits, on a free port and in a folder of the test.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect } from '@nats-io/transport-node';
import { gone } from '../../lib/child-process.js';
import { freePort, natsEnvironment } from '../../lib/testing/nats.js';

export const natsUsers = ['gateway', 'worker', 'admin', 'reader'] as const;
export type DeployedUser = (typeof natsUsers)[number];

export interface DeployedNats {
  /** `127.0.0.1:<port>`. */
  readonly address: string;
  readonly passwords: Readonly<Record<DeployedUser, string>>;
  /** `nats://user:password@127.0.0.1:<port>`. */
  url(user: DeployedUser): string;
  /** What the server refused so far, one line each: user, what, subject. */
  refusals(): string[];
  /** Ends it, without its data when `forget`, and starts it again. */
  restart(forget?: boolean): Promise<void>;
}

const deployed = readFileSync(fileURLToPath(new URL('../nats.conf', import.meta.url)), 'utf8');

/** @param program of nats-server @param more lines of the configuration */
export async function withDeployedNats<T>(
  use: (nats: DeployedNats) => Promise<T>,
  program = 'nats-server',
  more = '',
): Promise<T> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'sluice-deployed-'));
  const [config, logFile, data] = [join(folder, 'nats.conf'), join(folder, 'log'), join(folder, 'data')];
  const rewritten = deployed
    .replace(/^listen: .*$/m, `listen: "127.0.0.1:${port}"`)
    .replace(/^http: .*$/m, '')
    .replace(/store_dir: ".*?"/, `store_dir: ${JSON.stringify(data)}`)
    .replace(/max_file_store: \S+/, 'max_file_store: 2GB');
  writeFileSync(config, `${rewritten}\n${more}`);
  const passwords = Object.fromEntries(
    natsUsers.map((user) => [user, `s${randomBytes(12).toString('hex')}`]),
  ) as DeployedNats['passwords'];
  const variables = Object.entries(passwords).map(([user, word]) => [`NATS_${user.toUpperCase()}_PASSWORD`, word]);
  const start = () => {
    const output = openSync(logFile, 'a');
    try {
      return spawn(program, ['-c', config], {
        stdio: ['ignore', output, output],
        env: { ...natsEnvironment(), ...Object.fromEntries(variables) },
      });
    } finally {
      closeSync(output);
    }
  };
  let child = start();
  const untilUp = async (): Promise<void> => {
    for (let i = 0; i < 100; i++) {
      if (child.exitCode !== null) throw new Error(`nats-server ended: ${readFileSync(logFile, 'utf8').slice(-2_000)}`);
      // A port that answers is enough: with TLS, this is no client that it would take.
      try {
        const nc = await connect({ servers: `127.0.0.1:${port}`, user: 'admin', pass: passwords.admin, timeout: 500 });
        return await nc.close();
      } catch (error) {
        if (more !== '' && !/refused/.test(String(error))) return;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
    throw new Error('nats-server does not answer within 5 s');
  };
  try {
    await untilUp();
    return await use({
      address: `127.0.0.1:${port}`,
      passwords,
      url: (user) => `nats://${user}:${passwords[user]}@127.0.0.1:${port}`,
      refusals: () =>
        readFileSync(logFile, 'utf8')
          .split('\n')
          .flatMap((line) => {
            const what = /(\w+ Violation)/.exec(line)?.[1];
            // The first form is that of nats-server since 2.12.
            const user = /user:(\w+)"|User "(\w+)"/.exec(line);
            const subject = /Subject "([^"]*)"/.exec(line)?.[1];
            return what === undefined ? [] : [`${user?.[1] ?? user?.[2]}: ${what} ${subject}`];
          }),
      async restart(forget = false) {
        child.kill('SIGTERM');
        await gone(child);
        if (forget) rmSync(data, { recursive: true, force: true });
        child = start();
        await untilUp();
      },
    });
  } finally {
    child.kill('SIGKILL');
    await gone(child);
    rmSync(folder, { recursive: true, force: true });
  }
}
