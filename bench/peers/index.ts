/**
 * The peers: the same front door built in other ways, so that our figures have something to be read against. Each takes
 * the same events, holds them to the same field rules, reports invalid ones by index, field and code, stores the rest as
 * one JetStream message a batch, and answers only after the log's ack. (otel/ has no rules: OTLP knows none.)
 *
 *   index.ts         the list of peers, and how one is started (this file); peer-main.ts is the entry of those in Node
 *   fastify.ts       JSON over HTTP/1.1, checked by Fastify's own compiled JSON Schema (json-schema.ts)
 *   connect.ts       the same contract as ours on connect-node: decode with protobuf-es, check objects, encode
 *   grpc.ts          the same contract on grpc-js, with protobufjs (protobufjs-contract.ts)
 *   fiber/           JSON in Go: Fiber and goccy/go-json
 *   otel/            OTLP in Go: the OpenTelemetry Collector's receiver; otlp-logs.ts is events as an OTLP client would send
 *                    them, otlp-reader.ts reads them back for the tests
 *   object-checks.ts the field rules as compiled checks of decoded messages (connect.ts, grpc.ts)
 *   plain-json.ts    events as a JSON API would take them
 *   peer-log.ts      the JetStream side of those in Node
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { endProcess } from '../../lib/child-process.js';
import { buildGo } from '../../lib/testing/build-go.js';
import { programFlags, programPath } from '../../lib/testing/program.js';

export interface Peer {
  readonly name: string;
  readonly summary: string;
  /** What a client speaks to it. The one that takes OTLP checks no field rules. */
  readonly protocol: 'json' | 'grpc-stream' | 'otlp';
  /** The command line, without the options that all take. @throws GoMissing */
  command(): Promise<readonly string[]>;
}

export interface PeerOptions {
  /** `127.0.0.1:<port>` */
  readonly natsUrl: string;
  /** A stream that exists; the peer publishes to `<stream>.<tenant>`. */
  readonly stream: string;
  readonly tenant: string;
  /** Callers must show it as `authorization: Bearer <key>`. */
  readonly key: string;
}

export interface RunningPeer {
  readonly name: string;
  readonly pid: number;
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  /** Rejects when the process ends on its own; never resolves. */
  readonly failure: Promise<never>;
  close(): Promise<void>;
}

/** Of a peer in Go. */
const folder = (name: string): URL => new URL(`./${name}/`, import.meta.url);

const entry = programPath('bench/peers/peer-main.ts');
/** Twice the default young generation and more: decoded batches die young, and without this they are copied first. */
const nodeCommand = (name: string, ...more: string[]): readonly string[] => [
  process.execPath,
  '--max-semi-space-size=64',
  ...programFlags,
  entry,
  name,
  ...more,
];

export const peers: readonly Peer[] = [
  {
    name: 'fastify',
    summary: 'Fastify, JSON over HTTP/1.1: JSON.parse, compiled JSON Schema, JSON.stringify',
    protocol: 'json',
    command: async () => nodeCommand('fastify', '--store', 'encoded'),
  },
  {
    name: 'fastify-raw',
    summary: "the same, but a batch without faults is stored as the client's own text: no JSON.stringify",
    protocol: 'json',
    command: async () => nodeCommand('fastify', '--store', 'raw'),
  },
  {
    name: 'connect',
    summary: 'connect-node, the same PublishStream: protobuf-es decode, checks on objects, encode',
    protocol: 'grpc-stream',
    command: async () => nodeCommand('connect'),
  },
  {
    name: 'grpc-js',
    summary: 'grpc-js, the same PublishStream: protobufjs decode, checks on objects, encode',
    protocol: 'grpc-stream',
    command: async () => nodeCommand('grpc-js'),
  },
  {
    name: 'fiber',
    summary: "Go: Fiber, goccy/go-json, nats.go, pooled objects: the old platform's own design",
    protocol: 'json',
    command: async () => [await buildGo(folder('fiber')), '--store', 'encoded'],
  },
  {
    name: 'fiber-raw',
    summary: "the same, but a batch without faults is stored as the client's own text",
    protocol: 'json',
    command: async () => [await buildGo(folder('fiber')), '--store', 'raw'],
  },
  {
    name: 'otelcol',
    summary: "Go: the OpenTelemetry Collector's OTLP receiver, gRPC, to JetStream without queue; checks no field rules",
    protocol: 'otlp',
    command: async () => [await buildGo(folder('otel'))],
  },
];

const readyWithinMs = 30_000;
const endWithinMs = 5_000;

/** Starts a peer as its own process. @throws GoMissing, or Error with what it wrote when it does not get ready */
export async function startPeer(peer: Peer, options: PeerOptions): Promise<RunningPeer> {
  const [program = '', ...given] = await peer.command();
  const { natsUrl, stream, tenant, key } = options;
  const flags = ['--nats-url', natsUrl, '--stream', stream, '--tenant', tenant, '--key', key];
  // It ends when its standard input does: a peer never outlives who started it.
  const child = spawn(program, [...given, ...flags], { stdio: ['pipe', 'pipe', 'pipe'] });
  let closing = false;
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-2_000);
  });
  const failure = new Promise<never>((_, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      if (!closing) reject(new Error(`${peer.name} ended with ${signal ?? code}: ${said}`));
    });
  });
  failure.catch(() => undefined);
  const close = () => {
    closing = true;
    const ask = (): void => {
      child.stdin?.end();
      child.kill('SIGTERM');
    };
    return endProcess(child, { withinMs: endWithinMs, ask });
  };
  try {
    const port = await Promise.race([failure, portOf(child, () => `${peer.name} was not ready in time: ${said}`)]);
    return { name: peer.name, pid: child.pid ?? 0, url: `http://127.0.0.1:${port}`, failure, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The first line that a peer writes: `{"port":12345}`. */
function portOf(child: ChildProcess, late: () => string): Promise<number> {
  return new Promise((resolve, reject) => {
    if (child.stdout === null) throw new Error('a peer has a pipe for its output');
    const timer = setTimeout(() => reject(new Error(late())), readyWithinMs);
    createInterface({ input: child.stdout }).once('line', (line) => {
      clearTimeout(timer);
      const port = /^\{"port":(\d+)\}$/.exec(line)?.[1];
      if (port === undefined) reject(new Error(`a peer's first line is ${line.slice(0, 200)}`));
      else resolve(Number(port));
    });
  });
}
