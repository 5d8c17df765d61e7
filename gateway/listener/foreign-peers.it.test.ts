/**
 * The client for Node in a process of its own, with every kind of peer that is no gateway. It must hear of the trouble, never end the process,
 * and deliver everything once a gateway has the peer's place.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createServer as createTlsServer } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { makeCertificate } from '../../lib/testing/certificate.js';
import { type ForeignPeer, foreignPeers, listen } from '../../lib/testing/foreign-peers.js';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { type RunningGateway, withGateway } from '../testing/running-gateway.js';

const host = programPath('sdk-gen/typescript/src/testing/lonely-host.ts');
const events = 25;
/** Peers that share a process. */
const groupSize = 13;
const trusted = makeCertificate();

/** Joins a client's connection to the gateway's port, with TLS in front where the client wants it. */
function relayTo(port: number, scheme: ForeignPeer['scheme']): (socket: Socket) => void {
  const join = (near: Socket): void => {
    const far = connect(port, '127.0.0.1');
    near.on('error', () => {});
    far.on('error', () => {});
    near.once('close', () => far.destroy());
    far.once('close', () => near.destroy());
    near.pipe(far).pipe(near);
  };
  if (scheme === 'http') return join;
  const tls = createTlsServer({ ...trusted, ALPNProtocols: ['h2'] }, join);
  return (socket) => void tls.emit('connection', socket);
}

interface Said {
  readonly peer: string;
  readonly client: 'patient' | 'impatient';
  readonly heard?: string;
  readonly message?: string;
  readonly delivered?: number;
  readonly undelivered?: { readonly events: number };
}

/** One process with clients of all these peers. @returns what is wrong, a line each */
async function meet(peers: readonly ForeignPeer[], running: RunningGateway, certificate: string): Promise<string[]> {
  const places = new Map(
    await Promise.all(peers.map(async (peer) => [peer.name, { peer, place: await listen(peer.serve) }] as const)),
  );
  const task = {
    key: running.key,
    events,
    peers: [...places].map(([name, { peer, place }]) => ({
      name,
      baseUrl: `${peer.scheme}://127.0.0.1:${place.port}`,
    })),
  };
  const child = spawn(process.execPath, [...programFlags, host, JSON.stringify(task)], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    env: { ...process.env, NODE_EXTRA_CA_CERTS: certificate },
  });
  const said: Said[] = [];
  const of = (peer: string, client: Said['client']): Said[] =>
    said.filter((one) => one.peer === peer && one.client === client);
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  child.stdin.on('error', () => {});
  const replaced = new Set<string>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    const one = JSON.parse(line) as Said;
    said.push(one);
    const { peer: name } = one;
    const gaveUp = of(name, 'impatient').some(({ undelivered }) => undelivered !== undefined);
    const { peer, place } = places.get(name) ?? {};
    if (peer === undefined || !gaveUp || of(name, 'patient').length < 2 || replaced.has(name)) return;
    replaced.add(name);
    place?.become(relayTo(running.port, peer.scheme));
    child.stdin.write(`${name}\n`);
  });
  const killer = setTimeout(() => child.kill('SIGKILL'), 40_000);
  const code = await new Promise<number | string | null>((resolve) => {
    child.once('exit', (exit, signal) => resolve(exit ?? signal));
  });
  clearTimeout(killer);
  const wrong = code === 0 && stderr === '' ? [] : [`ended with ${code}: ${stderr.trim()}`];
  for (const [name, { place }] of places) {
    await place.close();
    const gaveUp = of(name, 'impatient').find(({ undelivered }) => undelivered !== undefined)?.undelivered?.events;
    const delivered = of(name, 'patient').find((one) => one.delivered !== undefined)?.delivered;
    if (!of(name, 'impatient').some(({ heard }) => heard !== undefined)) wrong.push(`${name}: no trouble was heard of`);
    if (gaveUp !== events) wrong.push(`${name}: gave up ${gaveUp} events`);
    if (delivered !== events) wrong.push(`${name}: delivered ${delivered} events`);
    const messages = new Set(of(name, 'impatient').map(({ message }) => message ?? ''));
    if (process.argv.includes('--tell')) console.log(name, '|', [...messages].join(' | '));
  }
  return wrong;
}

test('no peer ends the process of a client or keeps its events: it hears of the trouble, and delivers to the next', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-foreign-'));
  const certificate = join(folder, 'cert.pem');
  await writeFile(certificate, trusted.cert);
  try {
    await withGateway({}, async (running) => {
      const peers = foreignPeers(trusted, makeCertificate());
      const wrong: string[] = [];
      for (let at = 0; at < peers.length; at += groupSize) {
        const group = peers.slice(at, at + groupSize);
        const faults = await meet(group, running, certificate);
        // A process that ended does not say which peer it was.
        if (faults.length > 0) for (const peer of group) wrong.push(...(await meet([peer], running, certificate)));
        if (faults.length > 0 && wrong.length === 0) wrong.push(...faults);
      }
      assert.is(wrong.join('\n'), '');
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test.run();
