/**
 * `sluice gateway`: the process around gateway.ts. Settings, signals, exit codes.
 *
 * The rooms, in the order of a batch's way. The entry file of each has the map of its room.
 * A room imports only from rooms behind it in this row: api, ingest, log, auth, held, listener, errors.
 *
 *   listener/   connections: one port, TLS, HTTP/1.1 and HTTP/2, limits of peers; map in listener/server.ts
 *   held/       what the gateway holds of requests and answers that are not whole, and its bounds; map in held/unfinished.ts
 *   api/        the calls: routes, protocols, JSON; map in api/routes.ts
 *   api/hot/    Publish and PublishStream in Protobuf over HTTP/2, below the RPC library; map in api/hot/handler.ts
 *   ingest/     from the bytes of a batch to its answer; map in ingest/ingest.ts
 *   log/        messages to JetStream, and their acks; map in log/publisher.ts
 *   auth/       which keys are valid; map in auth/key-watch.ts
 *   errors/     errors as the protocols show them; map in errors/rpc-errors.ts
 *   testing/    what tests of several rooms share
 *
 * Beside this file:
 *
 *   gateway.ts           builds a gateway from the rooms, and starts it
 *   processes.ts         several processes behind one port
 *   early-collection.ts  collects garbage early while memory is short
 *   metrics.ts           all instruments
 *   tracing.ts           one span for each batch
 *   clock.ts             time and random numbers, which tests and the simulator replace
 */

import cluster from 'node:cluster';
import type { NatsConnection } from '@nats-io/transport-node';
import { gatewayOptions, parseArgv, resolveOptions } from '../lib/config/index.js';
import { UsageError } from '../lib/errors.js';
import { armFailpoint } from '../lib/failpoint.js';
import { createLogger } from '../lib/logger.js';
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
const logger = createLogger('gateway', config.logLevel);

process.on('uncaughtException', (error) => {
  logger.fatal({ err: error }, 'unexpected error');
  process.exit(1);
});

if (startsOthers(config.processes)) {
  const { processes: count, metricsPort, drainGrace: graceMs, stallAfter } = config;
  if (metricsPort + count - 1 > 65_535) {
    refuse(new UsageError(`--metrics-port: ${count} processes count up from it, past 65535; choose a lower one.`));
  }
  runProcesses({ count, argv: process.argv.slice(2), metricsPort, graceMs, stallAfter, logger });
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
    logger.info({ why }, 'draining');
    // Whatever hangs, the process ends.
    setTimeout(() => {
      logger.error('the drain took too long');
      process.exit(1);
    }, config.drainGrace + 5_000).unref();
    await gateway?.drain();
    await Promise.all(connections.map((connection) => connection.close()));
    await flushTelemetry();
    logger.info('drained');
    process.exit(0);
  }
  process.on('SIGTERM', () => void end('SIGTERM'));
  process.on('SIGINT', () => void end('SIGINT'));
  // node:cluster's own listener would exit at once, without the drain.
  if (cluster.isWorker) process.removeAllListeners('disconnect');
  onParentGone(() => void end('the parent process is gone'));

  const connectAs = async (name: string): Promise<NatsConnection> => {
    const connection = await connectNats({ ...natsAt(config), name, user: 'gateway', logger });
    connections.push(connection);
    return connection;
  };
  const nats = connectAs('sluice gateway');
  const hedgeNats = config.hedgeDelay === 0 ? undefined : connectAs('sluice gateway, second tries');

  const started = await startGateway(config, { nats, hedgeNats, logger }).catch(refuse);
  gateway = started;
  answerProbes(started);
  logger.info({ host: config.host, port: started.port, tls: config.tlsCert !== '' }, 'listening');

  process.on('message', (message: { stalled?: number }) => {
    if (message.stalled !== undefined) started.stalled(message.stalled);
  });

  // The parent hears it when batches can be taken, not before.
  const announce = setInterval(() => {
    if (ending || !started.ready) return;
    clearInterval(announce);
    logger.info('ready');
    process.send?.({ ready: true, port: started.port });
  }, 20);
}
