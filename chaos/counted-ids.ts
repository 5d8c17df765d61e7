/**
 * A host that names its batches by a counter, and does not keep the counter over restarts: the ids of its earlier processes are used
 * again for other events. It may also number its sends as it should not. The client is not changed: names are put in on the way to its
 * connection, and taken out of the answers.
 */
import type { Link, LinkEvents } from '../sdk-gen/typescript/src/delivery.js';

export interface Counter {
  /** Of its batch ids; a number from 1 follows. */
  readonly prefix: string;
  /** What it says of a first send: 1 as it should, 0 when it does not count, 2 when it counts wrongly. */
  readonly firstAttempt: 0 | 1 | 2;
}

export interface Naming {
  link(events: LinkEvents, open: (events: LinkEvents) => Link): Link;
  /** The name on the wire of one of the client's batches. */
  nameOf(batchId: string): string;
}

/** The client's own ids. */
export const asItIs: Naming = { link: (events, open) => open(events), nameOf: (batchId) => batchId };

/** @param forgets an accepted batch is not sent again, so that its name need not be kept */
export function createCountedIds({ prefix, firstAttempt }: Counter, forgets: boolean): Naming {
  const names = new Map<string, string>();
  const owners = new Map<string, string>();
  let count = 0;
  const nameOf = (batchId: string): string => {
    let name = names.get(batchId);
    if (name === undefined) {
      name = `${prefix}-${++count}`;
      names.set(batchId, name);
      owners.set(name, batchId);
    }
    return name;
  };
  return {
    nameOf,
    link(events, open) {
      const link = open({
        ...events,
        onAccepted(name, result) {
          const batchId = owners.get(name);
          if (batchId === undefined) return;
          if (forgets) {
            owners.delete(name);
            names.delete(batchId);
          }
          events.onAccepted(batchId, result);
        },
        onFailed: (name, fault) => events.onFailed(owners.get(name) ?? name, fault),
      });
      return {
        ...link,
        send(batch) {
          const attempt = firstAttempt === 0 ? 0 : batch.attempt + firstAttempt - 1;
          link.send({ ...batch, batchId: nameOf(batch.batchId), attempt });
        },
      };
    },
  };
}
