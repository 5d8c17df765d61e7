/**
 * Connections to NATS, with measured settings (docs/facts.md, FACT-6) and the bookkeeping of every role.
 */
import { type Authenticator, AuthorizationError, createInbox } from '@nats-io/nats-core';
import { type ConnectionOptions, connect, type NatsConnection } from '@nats-io/transport-node';
import { backOff, jittered } from './back-off.js';
import { UsageError } from './errors.js';
import type { Logger } from './logger.js';
import { type NatsAddress, natsLogin } from './nats-login.js';
import { natsTls, tlsRefusal } from './nats-tls.js';
import { inboxPrefix, type NatsUser } from './subjects.js';

export interface NatsOptions extends NatsAddress {
  /** Shown in nats-server's connection list. */
  readonly name: string;
  /** Answers come to an inbox that only this user of nats-server may listen to. @default 'admin' */
  readonly user?: NatsUser;
  readonly logger: Logger;
  /** Give up the first connect after this many ms. @default wait forever */
  readonly timeoutMs?: number;
}

/** How long one try may take: a server that takes the connection and says nothing must not keep us from another. */
const dialMs = 5_000;
/** Between tries to connect. */
const pacing = { first: 100, last: 1_000 } as const;
/** A connection that is lost after so long was a good one: the next tries start from the beginning, ms. */
const goodMs = 10_000;

/**
 * How long the library is to wait since its last try with the same server, ms; it asks before each try and again after
 * each wait. The first try after a good connection goes at once: what was lost is the server, and another may be there.
 * The library measures by the wall clock, and would wait for an hour after that was set back by one; so once the time has
 * come by the monotonic clock, the answer is not to wait.
 */
export function reconnectPacing(
  now: () => number = () => performance.now(),
  random: () => number = Math.random,
): () => number {
  let tries = 0;
  let lastTry = Number.NEGATIVE_INFINITY;
  let waitMs = 0;
  return () => {
    const at = now();
    // Timers may fire a millisecond early.
    if (at - lastTry < waitMs - 2) return waitMs;
    tries = at - lastTry > goodMs ? 1 : tries + 1;
    waitMs = jittered(backOff(pacing, tries), random);
    lastTry = at;
    return Number.NEGATIVE_INFINITY;
  };
}

/** What each connection was made with, for connections beside it. */
const made = new WeakMap<object, { authenticator: Authenticator | undefined; encrypted: boolean; inbox: string }>();

/** What this connection logs in with; undefined: it is not one of ours, or shows nothing. */
export const authenticatorOf = (nc: object): Authenticator | undefined => made.get(nc)?.authenticator;

/** TLS is a must for this connection. */
export const mustEncrypt = (nc: object): boolean => made.get(nc)?.encrypted ?? false;

/** A new subject for answers, which the user of this connection may listen to. */
export const newInbox = (nc: object): string => createInbox(made.get(nc)?.inbox);

/**
 * Connects and stays connected: after the first success every loss is followed by reconnects without end, 50 ms to 1 s
 * apart with back-off and jitter, so that a restarted nats-server is not met by a storm.
 * @throws UsageError credentials or TLS files cannot be used, or, with `timeoutMs`, the server refuses them
 */
export async function connectNats(options: NatsOptions): Promise<NatsConnection> {
  const { servers, authenticator } = natsLogin(options);
  const tls = natsTls(options.tls, servers);
  const inbox = inboxPrefix(options.user ?? 'admin');
  const settings: ConnectionOptions = {
    servers: [...servers],
    name: options.name,
    maxReconnectAttempts: -1,
    noAsyncTraces: true,
    pingInterval: 5_000,
    maxPingOut: 3,
    timeout: options.timeoutMs ?? dialMs,
    // Two refusals in a row would end the connection; the credentials may be mended meanwhile.
    ignoreAuthErrorAbort: true,
    inboxPrefix: inbox,
    ...(authenticator === undefined ? {} : { authenticator }),
    ...(tls === undefined ? {} : { tls }),
  };
  const dial = (): Promise<NatsConnection> => connect({ ...settings, reconnectDelayHandler: reconnectPacing() });
  const nc = await (options.timeoutMs === undefined
    ? untilConnected(dial, (error) => refusal(servers, error, tls !== undefined), options.logger)
    : orRefused(dial, (error) => refusal(servers, error, tls !== undefined)));
  made.set(nc, { authenticator, encrypted: tls !== undefined, inbox });
  void (async () => {
    for await (const status of nc.status()) {
      if (status.type === 'disconnect' || status.type === 'reconnect' || status.type === 'error') {
        const detail = 'server' in status ? status.server : 'error' in status ? String(status.error) : undefined;
        options.logger.warn({ nats: status.type, detail }, 'nats status');
      }
    }
  })();
  return nc;
}

/** Why a server was not reached and what to do, when an operator can do something. */
function refusal(servers: readonly string[], error: unknown, encrypted: boolean): string | undefined {
  if (!(error instanceof AuthorizationError)) return tlsRefusal(servers, error, encrypted);
  return `NATS at ${servers.join(',')} refuses the log-in (${error.message}): give its credentials by --nats-credentials.`;
}

type Refusal = (error: unknown) => string | undefined;

async function orRefused(dial: () => Promise<NatsConnection>, refusalOf: Refusal): Promise<NatsConnection> {
  try {
    return await dial();
  } catch (error) {
    const why = refusalOf(error);
    throw why === undefined ? error : new UsageError(why);
  }
}

/** Tries without end, and says each new reason once. */
async function untilConnected(
  dial: () => Promise<NatsConnection>,
  refusalOf: Refusal,
  logger: Logger,
): Promise<NatsConnection> {
  let told = '';
  for (let tries = 1; ; tries++) {
    try {
      return await dial();
    } catch (error) {
      const why = refusalOf(error) ?? String(error);
      if (why !== told) logger.warn({ why }, 'cannot reach NATS yet');
      told = why;
      await new Promise((resolve) => setTimeout(resolve, jittered(backOff(pacing, tries))));
    }
  }
}
