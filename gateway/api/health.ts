/**
 * Whether this gateway can take batches: for load balancers over grpc.health.v1, for others on /readyz (http-api.ts).
 * No key is needed (open-routes.ts has the bounds). Watchers hear of changes within a quarter of a second.
 */
import { create } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import {
  Health,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as Status,
} from '#gen/grpc/health/v1/health_pb.js';
import { connectionKey, exchangeKey, whenClosed } from '../listener/connection.js';
import { createOpenPlaces, type OpenRoutes } from './open-routes.js';

export interface Readiness {
  readonly ready: boolean;
  /** Why not. */
  readonly reason: string | undefined;
}

export interface HealthService {
  routes(routes: OpenRoutes): void;
  close(): void;
}

const pollMs = 250;
/** Open Watch calls: a client needs one for each service it looks at. They cost some 50 kB each. */
const maxWatches = 1_000;
const maxWatchesOfConnection = 4;

/** @param services full names of the services that need the log; the empty name stands for the gateway as a whole */
export function createHealth(readiness: Readiness, services: readonly string[]): HealthService {
  const known = new Set(['', ...services]);
  const now = (): Status => (readiness.ready ? Status.SERVING : Status.NOT_SERVING);

  const watchers = new Set<() => void>();
  let last = now();
  /** Watchers go by what was seen here, so that none misses a change between two looks. */
  const look = (): Status => {
    const status = now();
    if (status !== last) {
      last = status;
      for (const wake of watchers) wake();
    }
    return status;
  };
  const poll = setInterval(look, pollMs);
  poll.unref();

  return {
    routes(routes) {
      const { check, list, watch } = Health.method;
      routes.unary(check, ({ service }) => {
        if (!known.has(service)) throw new ConnectError('No such service: see List.', Code.NotFound);
        return { status: now() };
      });
      routes.unary(list, () => ({
        statuses: Object.fromEntries([...known].map((name) => [name, { status: now() }])),
      }));
      const places = createOpenPlaces('Watch calls', maxWatches, maxWatchesOfConnection);
      routes.serverStream(watch, places, async function* ({ service }, { values, signal }) {
        if (!known.has(service)) {
          // By the protocol: no error, because the service may come.
          yield create(HealthCheckResponseSchema, { status: Status.SERVICE_UNKNOWN });
        }
        let ending = false;
        let wake: (() => void) | undefined;
        const rouse = (): void => wake?.();
        const leave = values.get(connectionKey).onEnding(() => {
          ending = true;
          rouse();
        });
        watchers.add(rouse);
        signal.addEventListener('abort', rouse, { once: true });
        // Not at the end of this generator: one whose client does not read stands still at a `yield`, and never gets there.
        whenClosed(values.get(exchangeKey), () => {
          watchers.delete(rouse);
          leave();
        });
        let told: Status | undefined;
        while (!signal.aborted) {
          const status = look();
          if (known.has(service) && status !== told) {
            told = status;
            yield create(HealthCheckResponseSchema, { status });
            continue;
          }
          if (ending) return;
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      });
    },
    close() {
      clearInterval(poll);
    },
  };
}
