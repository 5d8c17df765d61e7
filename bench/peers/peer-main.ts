/**
 * Entry of the peers in Node: `peer-main.ts <name> --nats-url … --stream … --tenant … --key …`. Its first line of output is
 * `{"port":…}`; it ends on SIGTERM, and when its standard input does.
 */
import { parseArgs } from 'node:util';
import { serveConnect } from './connect.js';
import { serveFastify } from './fastify.js';
import { serveGrpc } from './grpc.js';
import { connectPeerLog, type PeerLog } from './peer-log.js';

const text = { type: 'string' } as const;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { 'nats-url': text, stream: text, tenant: text, key: text, store: { ...text, default: 'encoded' } },
});

function given(name: 'nats-url' | 'stream' | 'tenant' | 'key'): string {
  const value = values[name];
  if (value === undefined) throw new Error(`--${name} is missing`);
  return value;
}

function serve(log: PeerLog): Promise<number> {
  const options = { log, tenant: given('tenant'), key: given('key') };
  switch (positionals[0]) {
    case 'fastify':
      return serveFastify({ ...options, raw: values.store === 'raw' });
    case 'connect':
      return serveConnect(options);
    case 'grpc-js':
      return serveGrpc(options);
    default:
      throw new Error(`there is no peer ${positionals[0]}`);
  }
}

process.once('SIGTERM', () => process.exit(0));
process.stdin.resume().once('end', () => process.exit(0));
const log = await connectPeerLog({ natsUrl: given('nats-url'), stream: given('stream'), tenant: given('tenant') });
process.stdout.write(`{"port":${await serve(log)}}\n`);
