/** What goes wrong, and who mends it. */
import { integer, pick } from '../lib/testing/batches.js';
import type { Fleet } from './fleet.js';
import type { SimulatedLog } from './log.js';
import type { Network } from './network.js';
import type { FaultKind, Plan } from './plan.js';
import type { Process } from './process.js';
import type { SimulatedSink } from './sink.js';
import type { World } from './world.js';

export interface FaultTargets {
  readonly world: World;
  readonly plan: Plan;
  readonly network: Network;
  readonly log: SimulatedLog;
  readonly sink: SimulatedSink;
  readonly gateways: Fleet<{ readonly process: Process; drain(graceMs: number): void }>;
  readonly workers: Fleet<{ readonly process: Process }>;
  readonly clients: Fleet<{ readonly process: Process }>;
  /** An operator removes a stream, by the book. */
  removeStream(shard: number): void;
}

/** Makes one fault happen now. */
export function inflict(kind: FaultKind, targets: FaultTargets): void {
  const { world, plan, network, log, sink, gateways, workers, clients } = targets;
  const { random } = world;
  const downMs = random() < 0.5 ? random() * 500 : random() * 10_000;
  /** Many short ones, and some that outlast every time-out. */
  const spell = (): number => (random() < 0.6 ? random() * 3_000 : random() * plan.longestFreezeMs);
  const any = (of: Fleet<{ readonly process: Process }>): number => integer(random, 0, of.all.length - 1);
  const processOf = (of: Fleet<{ readonly process: Process }>): Process => pick(random, of.all).process;
  /** While a statement runs, or just after. */
  const soonAfterInsert = (run: () => void): void =>
    sink.onNextInsert(() => {
      if (!world.calm) world.time.after(random() * 60, run);
    });
  switch (kind) {
    case 'kill gateway':
      gateways.replace(any(gateways), downMs);
      return;
    case 'kill worker':
      // Some at any time, most where it hurts.
      if (random() < 0.4) workers.replace(any(workers), downMs);
      else
        sink.onNextInsert((owner) => {
          const index = workers.all.findIndex(({ process }) => process === owner);
          if (!world.calm && index >= 0) world.time.after(random() * 60, () => workers.replace(index, downMs));
        });
      return;
    case 'kill client':
      clients.replace(any(clients), downMs);
      return;
    case 'freeze gateway':
      processOf(gateways).freeze(spell());
      return;
    case 'freeze worker':
      if (random() < 0.4) processOf(workers).freeze(spell());
      else {
        const ms = spell();
        sink.onNextInsert((owner) => {
          if (!world.calm) owner.deliver(random() * 60, () => owner.freeze(ms));
        });
      }
      return;
    case 'freeze client':
      processOf(clients).freeze(spell());
      return;
    case 'drain gateway': {
      const index = any(gateways);
      gateways.all[index]?.drain(1_000 + random() * 4_000);
      world.time.after(10_000, () => gateways.replace(index, 100));
      return;
    }
    case 'cut network':
      network.cut();
      return;
    case 'stall network':
      network.stall(random() * 20_000);
      return;
    case 'restart log':
      log.restart(downMs);
      return;
    case 'cut log lines':
      log.cutLines();
      return;
    case 'stall log lines':
      log.stallLines(random() * 20_000);
      return;
    case 'restart sink':
      soonAfterInsert(() => sink.restart(downMs));
      return;
    case 'set clock':
      pick(random, [processOf(gateways), processOf(workers), processOf(clients)]).setClock(
        integer(random, -600_000, 600_000),
      );
      return;
    case 'rewind log':
      log.rewind();
      log.restart(downMs);
      return;
    case 'remove stream':
      targets.removeStream(integer(random, 0, log.shards - 1));
      return;
    default: {
      const never: never = kind;
      throw new Error(`unknown fault ${String(never)}`);
    }
  }
}
