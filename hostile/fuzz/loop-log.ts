/** The delays of event loops over a run: of each gateway, and of the sender. A late answer is no fault where a loop stood still. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { ProcessWatch } from '../process-watch.js';

const everyMs = 500;

export interface LoopLog {
  /** The longest delay in a span of `performance.now()`, ms: of gateway number `gateway`, or of the sender. */
  worst(gateway: number, from: number, to: number): number;
  /** Resolves when all up to now is known. */
  close(): Promise<void>;
}

interface Sample {
  readonly from: number;
  readonly to: number;
  /** ms, of each gateway. */
  readonly delays: readonly number[];
  readonly own: number;
}

export function startLoopLog(watches: readonly Pick<ProcessWatch, 'loopDelay'>[]): LoopLog {
  const samples: Sample[] = [];
  const own = monitorEventLoopDelay({ resolution: 20 });
  own.enable();
  let from = performance.now();
  let over = false;
  const look = async (): Promise<void> => {
    const delays = await Promise.all(watches.map((watch) => watch.loopDelay()));
    const to = performance.now();
    samples.push({ from, to, delays, own: own.max / 1e6 });
    own.reset();
    from = to;
  };
  const looking = (async () => {
    while (!over) {
      await new Promise((resolve) => setTimeout(resolve, everyMs));
      await look();
    }
  })();
  return {
    worst(gateway, since, until) {
      const within = samples.filter((sample) => sample.to >= since && sample.from <= until);
      // A gateway that does not say its delay is one that stands still.
      return Math.max(0, ...within.map(({ delays, own: mine }) => Math.max(mine, delays[gateway] || 0)));
    },
    async close() {
      over = true;
      await looking;
      own.disable();
    },
  };
}
