/**
 * Who takes part in a comparison: our gateway and the peers, each its own process on one nats-server, with a stream and a
 * load process of its own. All run from start to end and take turns; who has no turn is idle.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jetstreamManager } from '@nats-io/jetstream';
import { shardStream } from '../../lib/subjects.js';
import { addTenant } from '../../lib/tenants.js';
import { GoMissing } from '../../lib/testing/go-missing.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { startRole } from '../../lib/testing/role-process.js';
import { GiB } from '../../lib/units.js';
import { type Fleet, startFleet } from '../fleet.js';
import { type Prepared, prepare } from '../payload.js';
import { peers as allPeers, type Peer, type RunningPeer, startPeer } from '../peers/index.js';
import { createPeerStream } from '../peers/peer-log.js';
import type { LoadTarget } from '../protocol.js';
import { prepareJson, prepareOtlp } from './payloads.js';

export interface Contender {
  readonly name: string;
  readonly summary: string;
  readonly pid: number;
  readonly fleet: Fleet;
  /** Bytes of an event in a request: gRPC's frame included, HTTP's head and frames not. */
  readonly wireBytes: number;
  /** Rejects when the process ends on its own; never resolves. */
  readonly failure: Promise<never>;
  /** What its stream takes on disk now, by JetStream's count. */
  logBytes(): Promise<number>;
  /** Empties its stream. */
  purge(): Promise<void>;
}

export interface Field {
  readonly contenders: readonly Contender[];
  /** Peers that cannot run here, with the reason. */
  readonly skipped: readonly { readonly name: string; readonly reason: string }[];
  readonly natsPid: number;
}

export interface FieldOptions {
  /** Names of the peers; ours always takes part. */
  readonly peers: readonly string[];
  readonly batch: number;
  readonly inFlight: number;
  readonly seed: number;
  /** Extra flags of our gateway. */
  readonly gatewayFlags: readonly string[];
  readonly progress: (line: string) => void;
}

export const ours = 'sluice';
const tenant = 'bench';
/** As many as the gRPC streams have. One to four made no difference. */
const otlpConnections = 2;
/** A stream is emptied after each turn; a turn's load must fit. JetStream reserves all of them at once. */
const streamBytes = 6 * GiB;

export async function withField<T>(options: FieldOptions, use: (field: Field) => Promise<T>): Promise<T> {
  return withNats(async (nats) => {
    const folder = await mkdtemp(join(tmpdir(), 'sluice-compare-'));
    const closers: (() => Promise<void>)[] = [() => rm(folder, { recursive: true, force: true })];
    // A signal ends the run like an error does, so that what was started is ended too.
    let interrupt: (signal: string) => void = () => undefined;
    const interrupted = new Promise<never>((_, reject) => {
      interrupt = (signal) => reject(new Error(`interrupted by ${signal}`));
    });
    interrupted.catch(() => undefined);
    process.once('SIGTERM', interrupt).once('SIGINT', interrupt);
    try {
      const contenders: Contender[] = [];
      const skipped: { name: string; reason: string }[] = [];
      const enter = async (one: Entry): Promise<void> => {
        contenders.push(await contend(nats, one, options, interrupted, closers));
      };
      options.progress(`starting ${ours}`);
      await enter(await startOurs(nats, folder, options, closers));
      for (const peer of allPeers.filter(({ name }) => options.peers.includes(name))) {
        options.progress(`starting ${peer.name}`);
        const stream = `PEER_${peer.name.toUpperCase().replace(/[^A-Z]/g, '_')}`;
        const key = `key-of-${peer.name}`;
        await createPeerStream(nats.nc, stream, streamBytes);
        try {
          const running = await startPeer(peer, { natsUrl: nats.url, stream, tenant, key });
          closers.push(running.close);
          const { pid, failure } = running;
          const target = targetOf(peer, running, key);
          await enter({ name: peer.name, summary: peer.summary, pid, failure, stream, target });
        } catch (error) {
          if (!(error instanceof GoMissing)) throw error;
          skipped.push({ name: peer.name, reason: error.message });
          options.progress(`${peer.name}: ${error.message}`);
        }
      }
      return await use({ contenders, skipped, natsPid: nats.process().pid ?? 0 });
    } finally {
      process.off('SIGTERM', interrupt).off('SIGINT', interrupt);
      for (const close of closers.reverse()) await close();
    }
  });
}

interface Entry {
  readonly name: string;
  readonly summary: string;
  readonly pid: number;
  readonly failure: Promise<never>;
  readonly stream: string;
  readonly target: LoadTarget;
}

function targetOf({ protocol }: Peer, { url }: RunningPeer, key: string): LoadTarget {
  switch (protocol) {
    case 'json':
      return { kind: 'json', url, key };
    case 'otlp':
      return { kind: 'otlp', url, key, connections: otlpConnections };
    case 'grpc-stream':
      return { kind: 'gateway', url, key, connections: 2, streams: 2 };
    default: {
      const never: never = protocol;
      throw new Error(`unknown protocol ${String(never)}`);
    }
  }
}

/** One shard, so that ours has one stream like all others. */
async function startOurs(
  nats: TestNats,
  folder: string,
  options: FieldOptions,
  closers: (() => Promise<void>)[],
): Promise<Entry> {
  const { key } = await addTenant(nats.nc, { tenant });
  const flags = ['--nats-url', nats.url, '--metrics-port', '0', '--log-level', 'warn', '--port', '0', '--shards', '1'];
  flags.push('--shard-max-bytes', '6GiB', ...options.gatewayFlags);
  const role = await startRole('gateway', 0, { flags, folder, telemetry: true });
  closers.push(role.close);
  const url = `http://127.0.0.1:${role.port}`;
  return {
    name: ours,
    summary: 'our gateway: scan of the wire bytes, no decoding, telemetry on',
    pid: role.pid,
    failure: role.failure,
    stream: shardStream(0),
    target: { kind: 'gateway', url, key, connections: 2, streams: 2 },
  };
}

function messageTo(target: LoadTarget, events: number, seed: number): Prepared {
  if (target.kind === 'json') return prepareJson({ events, seed });
  if (target.kind === 'otlp') return prepareOtlp({ events, seed });
  return prepare({ target: 'gateway', events, seed, tenant });
}

async function contend(
  nats: TestNats,
  entry: Entry,
  options: FieldOptions,
  interrupted: Promise<never>,
  closers: (() => Promise<void>)[],
): Promise<Contender> {
  const { batch, inFlight, seed } = options;
  const { name, summary, pid, stream, target } = entry;
  const fleet = await startFleet({ target, tenant, batch, inFlight, seed, processes: 1 });
  closers.push(fleet.close);
  const failure = Promise.race([entry.failure, fleet.failure, interrupted]);
  failure.catch(() => undefined);
  const message = messageTo(target, batch, seed);
  const jsm = await jetstreamManager(nats.nc);
  return {
    name,
    summary,
    pid,
    fleet,
    wireBytes: message.bytes.length / batch,
    failure,
    logBytes: async () => (await jsm.streams.info(stream)).state.bytes,
    purge: async () => {
      await jsm.streams.purge(stream);
    },
  };
}
