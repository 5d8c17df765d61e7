/** Runs the load's core against a way of sending, inside a test. */
import { setTimeout as sleep } from 'node:timers/promises';
import { createGenerator, type Generator } from '../generator.js';
import { createClosedLoop } from '../pace.js';
import type { Prepared } from '../payload.js';
import type { Sender, SenderEvents } from '../sender.js';

export interface DriveOptions {
  readonly messages: readonly Prepared[];
  /** Acknowledged at least. */
  readonly batches: number;
  readonly open: (events: SenderEvents) => Sender;
}

const withinMs = 20_000;

/**
 * Sends as fast as acks allow until so many batches are acknowledged and nothing is in flight, or the sender cannot go on: then
 * the generator's `error` says why.
 * @throws Error when that takes longer than 20 s
 */
export async function drive({ messages, batches, open }: DriveOptions): Promise<Generator> {
  const generator = createGenerator({ messages, inFlight: 12, run: 7 });
  const sender = open(generator.events);
  generator.attach(sender);
  generator.pace(createClosedLoop());
  const until = Date.now() + withinMs;
  try {
    while ((generator.inFlight > 0 || generator.total.batches < batches) && generator.error === undefined) {
      if (generator.total.batches >= batches) generator.pace(undefined);
      generator.tick();
      await sleep(1);
      if (Date.now() > until) throw new Error(`still ${generator.inFlight} in flight: ${generator.lastReason}`);
    }
    return generator;
  } finally {
    await sender.close();
  }
}
