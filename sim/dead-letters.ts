/** The simulated dead letters: what is put there is kept, though who put it may not hear so, and puts it again. */
import type { Dead } from '../workers/loader/dead-letters.js';
import type { Process } from './process.js';
import { storedBatches } from './stored.js';
import type { World } from './world.js';

export interface DeadLetters {
  put(owner: Process, letters: readonly Dead[]): Promise<void>;
  /** All events that lie there. */
  readonly eventIds: ReadonlySet<string>;
}

export function createDeadLetters(world: World): DeadLetters {
  const eventIds = new Set<string>();
  return {
    put: (owner, letters) =>
      new Promise((resolve, reject) => {
        const lost = (): void => reject(new Error('the dead letters do not answer'));
        if (world.chance(0.05)) {
          owner.deliver(world.delay(), lost);
          return;
        }
        world.time.after(world.delay(), () => {
          for (const { bytes, reason } of letters) {
            for (const batch of storedBatches(bytes)) {
              world.trace?.(owner.name, `buries ${batch.batchId}: ${reason}`);
              for (const id of batch.eventIds) eventIds.add(id);
            }
          }
          owner.deliver(world.delay(), world.chance(0.05) ? lost : resolve);
        });
      }),
    eventIds,
  };
}
