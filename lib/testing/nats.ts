/**
 * A real nats-server with JetStream for one test: free port, own folder, gone at the end.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConnectionOptions, connect, type NatsConnection } from '@nats-io/transport-node';
import { gone } from '../child-process.js';

export interface TestNats {
  /** `127.0.0.1:<port>`. */
  readonly url: string;
  /** A connection of the test's own; closed at the end. */
  readonly nc: NatsConnection;
  /** The server's process: for SIGSTOP, SIGCONT, SIGKILL. */
  process(): ChildProcess;
  /** Starts the server again on the same port and data after a kill. */
  restart(): Promise<void>;
  /** Ends the server and starts it again, with a copy of its data put aside in between. */
  keepCopy(): Promise<void>;
  /** What a power loss may do: kills the server, and starts it again with the data of the copy. */
  rollBack(): Promise<void>;
}

/** Below the ports that systems give to outgoing connections (Linux from 32768 on): those may be taken before a server has them. */
const lowestPort = 12_000;
const ports = 20_000;
const given = new Set<number>();

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });

/** A port that is free, and that this process has not given out before: who got one may not listen on it yet. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = lowestPort + randomInt(ports);
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
}

export interface NatsSettings {
  /** nats-server's path, or its name on the PATH. @default 'nats-server' */
  readonly program?: string;
  /** Where folders are made. @default the system's temporary folder */
  readonly parent?: string;
  /** More settings of JetStream, e.g. `sync_interval: always`. @default none */
  readonly jetstream?: string;
  /** More lines of the configuration; asked at each start. @default none */
  readonly more?: () => string;
  /** What the test's own connection shows. @default nothing */
  readonly login?: Pick<ConnectionOptions, 'user' | 'pass' | 'token' | 'authenticator' | 'tls'>;
}

/** Servers that Debian keeps out of the PATH are found too. */
export const natsEnvironment = (): NodeJS.ProcessEnv => ({
  ...process.env,
  PATH: `${process.env.PATH ?? ''}:/usr/sbin:/usr/local/sbin`,
});

/** The `jetstream` block of a configuration. */
export const jetstreamBlock = (folder: string, { jetstream = '' }: NatsSettings): string =>
  `jetstream { store_dir: ${JSON.stringify(folder)}, ${jetstream} }\n`;

async function untilUp(port: number, child: ChildProcess, login: NatsSettings['login']): Promise<NatsConnection> {
  for (let i = 0; i < 100; i++) {
    if (child.exitCode !== null) {
      throw new Error(`nats-server exited with ${child.exitCode} before it was ready`);
    }
    try {
      return await connect({
        servers: `127.0.0.1:${port}`,
        maxReconnectAttempts: -1,
        noAsyncTraces: true,
        timeout: 500,
        ...login,
      });
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  throw new Error(`nats-server did not answer on port ${port} within 5 s`);
}

/** Runs `use` with a server, and ends the server, also after an error. */
export async function withNats<T>(use: (nats: TestNats) => Promise<T>, settings: NatsSettings = {}): Promise<T> {
  const port = await freePort();
  const dir = await mkdtemp(join(settings.parent ?? tmpdir(), 'sluice-nats-'));
  const config = join(dir, 'nats.conf');
  const base = `listen: "127.0.0.1:${port}"\nmax_payload: 8MB\n${jetstreamBlock(dir, settings)}`;
  const start = (): ChildProcess => {
    writeFileSync(config, `${base}${settings.more?.() ?? ''}`);
    return spawn(settings.program ?? 'nats-server', ['-c', config], { stdio: 'ignore', env: natsEnvironment() });
  };
  const data = join(dir, 'jetstream');
  const copy = join(dir, 'copy');
  let child = start();
  const again = async (): Promise<void> => {
    await gone(child);
    child = start();
    const probe = await untilUp(port, child, settings.login);
    await probe.close();
  };
  try {
    const nc = await untilUp(port, child, settings.login);
    try {
      return await use({
        url: `127.0.0.1:${port}`,
        nc,
        process: () => child,
        restart: again,
        keepCopy: async () => {
          child.kill('SIGTERM');
          await gone(child);
          await rm(copy, { recursive: true, force: true });
          await cp(data, copy, { recursive: true });
          await again();
        },
        rollBack: async () => {
          child.kill('SIGKILL');
          await gone(child);
          await rm(data, { recursive: true, force: true });
          await cp(copy, data, { recursive: true });
          await again();
        },
      });
    } finally {
      await nc.close();
    }
  } finally {
    child.kill('SIGKILL');
    await gone(child);
    await rm(dir, { recursive: true, force: true });
  }
}
