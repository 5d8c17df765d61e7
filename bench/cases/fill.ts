/**
 * Fills the gateway's streams with the raw publisher, as a gateway would have.
 */
import { startFleet } from '../fleet.js';
import { whole } from '../report.js';
import type { Stack } from '../stack.js';
import type { Progress } from './case.js';

export interface FillOptions {
  /** At the least: what is in flight when there are enough is written too. */
  readonly events: number;
  readonly batch: number;
  readonly shards: number;
  readonly tenant: string;
  readonly seed: number;
  /** Spreads occurred_at over so many days. */
  readonly spreadDays?: number;
  readonly nodeArguments?: readonly string[];
}

export interface Filled {
  readonly events: number;
  readonly batches: number;
  readonly resends: number;
}

export async function fillLog(stack: Stack, options: FillOptions, progress: Progress): Promise<Filled> {
  const { batch, shards, tenant, seed, spreadDays } = options;
  const fleet = await startFleet({
    target: { kind: 'log', natsUrl: stack.natsUrl, shards, subjectRoot: 'ev' },
    ...{ tenant, batch, seed, inFlight: 64, processes: 1 },
    ...(spreadDays === undefined ? {} : { spreadDays }),
    ...(options.nodeArguments === undefined ? {} : { nodeArguments: options.nodeArguments }),
  });
  try {
    fleet.mark();
    fleet.begin('max');
    let told = performance.now();
    while (fleet.progress.acked < options.events) {
      await Promise.race([new Promise((resolve) => setTimeout(resolve, 100)), fleet.failure, stack.failure]);
      if (performance.now() - told > 2_000) {
        told = performance.now();
        progress(`filling the log: ${whole(fleet.progress.acked)} of ${whole(options.events)} events`);
      }
    }
    const { total } = await Promise.race([fleet.stop(60_000), stack.failure]);
    return { events: total.acked, batches: total.batches, resends: total.resends };
  } finally {
    await fleet.close();
  }
}
