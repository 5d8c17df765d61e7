/**
 * nats-server of the local stack: its configuration and when it serves.
 */
import { connect } from 'node:net';
import { join } from 'node:path';
import { urlHost } from '../../lib/host.js';
import { writeSecret } from '../../lib/secret-file.js';

export interface NatsConfigOptions {
  readonly folder: string;
  readonly host: string;
  readonly port: number;
  /** Of the monitoring pages, which ask for no log-in; undefined: none. */
  readonly monitorPort?: number | undefined;
  /** What clients must log in with; undefined: anybody may. */
  readonly login?: { readonly user: string; readonly password: string } | undefined;
  /** More lines of the file, and of its `jetstream` block. */
  readonly more?: readonly string[];
  readonly jetstream?: readonly string[];
}

/** Above the largest batch that a gateway may be set to take (8 MiB) there is nothing to send. */
const maxPayload = '9MB';

/** @returns the file that was written */
export function writeNatsConfig(options: NatsConfigOptions): string {
  const { folder, host, port, monitorPort, login, more = [], jetstream = [] } = options;
  const file = join(folder, 'nats.conf');
  writeSecret(
    file,
    [
      '# Written at each start of `sluice up`.',
      `listen: ${JSON.stringify(`${urlHost(host)}:${port}`)}`,
      ...(monitorPort === undefined ? [] : [`http: ${JSON.stringify(`${urlHost(host)}:${monitorPort}`)}`]),
      ...(login === undefined
        ? []
        : [`authorization { user: ${JSON.stringify(login.user)}, password: ${JSON.stringify(login.password)} }`]),
      `max_payload: ${maxPayload}`,
      'jetstream {',
      `  store_dir: ${JSON.stringify(folder)}`,
      '  max_memory_store: 256MB',
      '  max_file_store: 1TB',
      ...jetstream.map((line) => `  ${line}`),
      '}',
      ...more,
      '',
    ].join('\n'),
  );
  return file;
}

/** Resolves when a NATS server greets on the port. Rejects after `withinMs`, and when the signal says stop. */
export async function natsGreets(host: string, port: number, withinMs: number, stop?: AbortSignal): Promise<void> {
  const end = Date.now() + withinMs;
  const greeted = (): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connect({ host, port });
      const settle = (result: boolean): void => {
        socket.destroy();
        resolve(result);
      };
      socket.setTimeout(1_000, () => settle(false));
      socket.once('data', (data) => settle(data.subarray(0, 4).toString() === 'INFO'));
      socket.once('error', () => settle(false));
      socket.once('close', () => settle(false));
    });
  while (!(await greeted())) {
    stop?.throwIfAborted();
    if (Date.now() > end) throw new Error(`no NATS server on ${host}:${port} within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
