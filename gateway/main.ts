/**
 * `sluice gateway`: the process around gateway.ts. Settings, signals, exit codes.
 *
 *   gateway.ts        puts all of this together
 *   processes.ts      several of them behind one port
 *   server.ts         one port, HTTP/1.1 and HTTP/2, and all connections; its own map is at its head
 *   connection.ts     what handlers know of a connection
 *   tls-files.ts      certificate, key and client CA, read again when they change
 *   cors.ts           browsers
 *   header-limits.ts  how many headers a request may have; expect-continue.ts when its body is asked for
 *   unreadable-http1.ts  what bytes that are no HTTP request are answered
 *   rpc-adapter.ts    node requests ↔ the RPC library: media-types.ts spellings, grpc-web-text.ts base64, envelope-flags.ts
 *   call-timeout.ts   how long callers wait, and what they hear when their request is not whole by then
 *   call-gate.ts      how many single calls are read at once; held-bytes.ts memory for small pieces that wait
 *   unfinished.ts     bounds bytes of requests that are not whole; unread-answers.ts of answers that are not read
 *   request-input.ts  bodies on Node's request objects; parked-input.ts streams that are not read for now
 *   whole-messages.ts messages for the RPC library; message-buffers.ts memory for those that come in parts
 *   hot/              binary Publish and PublishStream over HTTP/2, below the library: map in hot/handler.ts
 *   answered-early.ts answers before the end of their request; late-reset.ts resets that wait; reset-stream.ts the one safe way
 *   stream-faults.ts  a connection outlives the faults of its streams
 *   routes.ts         handlers by path; view.ts reads requests without decoding events
 *   beside-library.ts takes messages past the RPC library; json-request.ts reads those in JSON, json-turns.ts long ones in turn
 *   split-envelopes.ts messages of a body, not copied
 *   inflate.ts        bounds gzip; turns.ts work of which little is done at once
 *   rpc-unary.ts      calls of one message, rpc-stream.ts calls with many, with errors of ours in every protocol
 *   publish-stream.ts PublishStream; refused-row.ts counts its refused batches in a row; publish-batch.ts one batch into the core
 *   batch-status.ts   GetBatchStatus: asks a worker
 *   http-api.ts       POST /v1/events and /v1/events/batch, /healthz, /readyz
 *   health.ts         grpc.health.v1; reflection.ts grpc.reflection v1 and v1alpha; open-routes.ts bounds of calls without a key
 *   places.ts         how many of something are open, by owner and in all; stream-places.ts of PublishStream
 *   take-until.ts     messages until something else ends them
 *   rpc-errors.ts     the error table on the wire
 *   request-facts.ts  headers, checked and bounded; trusted-proxies.ts where the client is
 *   committed-hints.ts  what workers say of the warehouse; committed.ts is in ingest.ts's map
 *   key-watch.ts      revoked keys; pending-tenants.ts keys before NATS is there
 *   tracing.ts        spans
 *   stall.ts          standing still is noticed; early-collection.ts collects garbage early while memory is short
 *   ingest.ts         the core; its own map is at its head
 */

import cluster from 'node:cluster';
import type { NatsConnection } from '@nats-io/transport-node';
import { gatewayOptions, parseArgv, resolveOptions } from '../lib/config/index.js';
import { UsageError } from '../lib/errors.js';
import { armFailpoint } from '../lib/failpoint.js';
import { createLog } from '../lib/log.js';
import { connectNats } from '../lib/nats.js';
import { natsAt, natsLogin } from '../lib/nats-login.js';
import { natsTls } from '../lib/nats-tls.js';
import { onParentGone } from '../lib/parent-gone.js';
import { flushTelemetry } from '../lib/telemetry/flush.js';
import { answerProbes } from '../lib/telemetry/probes.js';
import { type Gateway, startGateway } from './gateway.js';
import { runProcesses, startsOthers } from './processes.js';

function orRefuse<T>(make: () => T): T {
  try {
    return make();
  } catch (error) {
    return refuse(error);
  }
}

/** What the user can mend is one line; all else is a bug and keeps its stack. */
function refuse(error: unknown): never {
  process.stderr.write(`${error instanceof UsageError ? error.message : String((error as Error).stack ?? error)}\n`);
  process.exit(1);
}

const config = orRefuse(() => resolveOptions(gatewayOptions, parseArgv(process.argv.slice(2), gatewayOptions)));
orRefuse(() => armFailpoint(config.failpoint, 'gateway'));
orRefuse(() => {
  const address = natsAt(config);
  natsTls(address.tls, natsLogin(address).servers);
});
const log = createLog('gateway', config.logLevel);

process.on('uncaughtException', (error) => {
  log.fatal({ err: error }, 'unexpected error');
  process.exit(1);
});

if (startsOthers(config.processes)) {
  const { processes: count, metricsPort, drainGrace: graceMs, stallAfter } = config;
  if (metricsPort + count - 1 > 65_535) {
    refuse(new UsageError(`--metrics-port: ${count} processes count up from it, past 65535; choose a lower one.`));
  }
  runProcesses({ count, argv: process.argv.slice(2), metricsPort, graceMs, stallAfter, log });
} else {
  await serve();
}

/** One gateway, in this process. */
async function serve(): Promise<void> {
  let gateway: Gateway | undefined;
  const connections: NatsConnection[] = [];
  let ending = false;

  async function end(why: string): Promise<void> {
    if (ending) return;
    ending = true;
    log.info({ why }, 'draining');
    // Whatever hangs, the process ends.
    setTimeout(() => {
      log.error('the drain took too long');
      process.exit(1);
    }, config.drainGrace + 5_000).unref();
    await gateway?.drain();
    await Promise.all(connections.map((connection) => connection.close()));
    await flushTelemetry();
    log.info('drained');
    process.exit(0);
  }
  process.on('SIGTERM', () => void end('SIGTERM'));
  process.on('SIGINT', () => void end('SIGINT'));
  // node:cluster's own listener would exit at once, without the drain.
  if (cluster.isWorker) process.removeAllListeners('disconnect');
  onParentGone(() => void end('the parent process is gone'));

  const connectAs = async (name: string): Promise<NatsConnection> => {
    const connection = await connectNats({ ...natsAt(config), name, user: 'gateway', log });
    connections.push(connection);
    return connection;
  };
  const nats = connectAs('sluice gateway');
  const hedgeNats = config.hedgeDelay === 0 ? undefined : connectAs('sluice gateway, second tries');

  const started = await startGateway(config, { nats, hedgeNats, log }).catch(refuse);
  gateway = started;
  answerProbes(started);
  log.info({ host: config.host, port: started.port, tls: config.tlsCert !== '' }, 'listening');

  process.on('message', (message: { stalled?: number }) => {
    if (message.stalled !== undefined) started.stalled(message.stalled);
  });

  // The parent hears it when batches can be taken, not before.
  const announce = setInterval(() => {
    if (ending || !started.ready) return;
    clearInterval(announce);
    log.info('ready');
    process.send?.({ ready: true, port: started.port });
  }, 20);
}
