/**
 * Requests to JetStream over a connection that may be lost. A request on its way then gets no answer, and nats.js lets it wait for its
 * time-out of 5 s: a worker came back 5 s after nats-server (FACT-28). Here a request fails when the connection is lost, and starts
 * when there is one.
 */
import type { NatsConnection } from '@nats-io/nats-core';

/** Runs `work` while connected. Rejects as `work` does, or when the connection is lost or is not there within 5 s. */
export type Ask = <T>(work: () => Promise<T>) => Promise<T>;

const patienceMs = 5_000;
/** One for each connection: statuses are heard once. */
const links = new WeakMap<NatsConnection, Ask>();

export function logLink(nc: NatsConnection): Ask {
  let link = links.get(nc);
  if (link === undefined) {
    link = watch(nc);
    links.set(nc, link);
  }
  return link;
}

function watch(nc: NatsConnection): Ask {
  let connected = nc.info !== undefined;
  const asking = new Set<(why: Error) => void>();
  const waiting = new Set<() => void>();

  void (async () => {
    for await (const { type } of nc.status()) {
      if (type === 'disconnect' || type === 'close') {
        connected = false;
        const why = new Error('the connection to NATS was lost');
        for (const giveUp of asking) giveUp(why);
        asking.clear();
      } else if (type === 'reconnect') {
        connected = true;
        for (const go of waiting) go();
        waiting.clear();
      }
    }
  })();

  const untilConnected = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const go = (): void => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => {
        waiting.delete(go);
        reject(new Error('NATS is disconnected'));
      }, patienceMs);
      waiting.add(go);
    });

  return async (work) => {
    if (!connected && !nc.isClosed()) await untilConnected();
    let giveUp: (why: Error) => void = () => {};
    const lost = new Promise<never>((_, reject) => {
      giveUp = reject;
    });
    asking.add(giveUp);
    try {
      return await Promise.race([work(), lost]);
    } finally {
      asking.delete(giveUp);
    }
  };
}
