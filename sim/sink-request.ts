/** Requests to the simulated ClickHouse, and everything that a request can do to its sender: be lost, come late, lose its answer. */
import type { InsertFailure } from '../workers/loader/loader.js';
import type { Process } from './process.js';
import type { World } from './world.js';

/** An error as the worker gets it. */
export class SinkFailure extends Error {
  constructor(
    readonly failure: InsertFailure,
    message: string,
  ) {
    super(message);
  }
}

const broken = (): SinkFailure => new SinkFailure('transient', 'the connection broke');

/** The worker's own limit for a request. */
const requestTimeoutMs = 10_000;

/** What the worker hears is decided apart from what the server does. */
export function request<T>(
  world: World,
  server: { readonly up: boolean },
  owner: Process,
  serve: (reply: (ms: number, value: T | SinkFailure) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let over = false;
    const hear = (ms: number, value: T | SinkFailure): void =>
      owner.deliver(ms, () => {
        if (over) return;
        over = true;
        cancel();
        if (value instanceof SinkFailure) reject(value);
        else resolve(value);
      });
    const cancel = owner.after(requestTimeoutMs, () => {
      if (over) return;
      over = true;
      reject(new SinkFailure('transient', 'no answer in time'));
    });
    if (world.chance(0.02)) {
      hear(world.delay(), broken());
      return;
    }
    let arriveMs = world.delay();
    if (world.chance(0.02)) {
      // The connection breaks, and the request arrives all the same, much later.
      hear(world.delay(), broken());
      arriveMs = world.random() * 20_000;
    }
    world.time.after(arriveMs, () => {
      if (!server.up) {
        hear(world.delay(), new SinkFailure('transient', 'connection refused'));
        return;
      }
      serve((ms, value) => hear(ms + world.delay(), world.chance(0.03) ? broken() : value));
    });
  });
}
