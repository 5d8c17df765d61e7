/**
 * The load process of a scenario: all virtual clients, on one event loop that shares nothing with what is measured.
 */
import { say as sayAny, sayFailed, soon, takeOrders } from '../load-child.js';
import { openCalls } from './calls.js';
import { createCrowd } from './crowd.js';
import type { CrowdSettings, FromCrowd, ToCrowd } from './crowd-protocol.js';
import { planSeconds } from './plan.js';

const say = (message: FromCrowd): void => sayAny(message);

function begin({ plan, target, seed, slotMs, patienceMs }: CrowdSettings): void {
  let started = performance.now();
  const now = () => performance.now() - started;
  const crowd = createCrowd({ plan, seed, run: (Date.now() ^ (process.pid << 16)) >>> 0, now });
  let timer: NodeJS.Timeout | undefined;
  /** Sends what is due and comes back when the next is: by timer, or after the next round of I/O when an answer came. */
  const run = (): void => {
    const wait = crowd.tick();
    clearTimeout(timer);
    if (crowd.error !== undefined) stop(crowd.error);
    else timer = setTimeout(run, Math.max(1, Math.floor(wait)));
  };
  const runSoon = soon(() => {
    if (!stopped) run();
  });
  const { events } = crowd;
  const calls = openCalls(target, crowd.clients, {
    outcome: (...outcome) => {
      events.outcome(...outcome);
      runSoon();
    },
    writable: () => {
      events.writable();
      runSoon();
    },
    failed: (error) => {
      events.failed(error);
      runSoon();
    },
  });
  crowd.attach(calls);
  const end = planSeconds(plan) * 1000;
  let stopped = false;
  const stop = (error?: Error): void => {
    if (stopped) return;
    stopped = true;
    clearInterval(slots);
    clearTimeout(timer);
    if (error !== undefined) {
      sayFailed(error);
      return;
    }
    say({ type: 'slot', slot: crowd.tally.slot(now()) });
    say({ type: 'result', result: crowd.tally.result() });
  };
  const slots = setInterval(() => {
    const at = now();
    if ((at > end && crowd.done) || at > end + patienceMs) stop();
    else say({ type: 'slot', slot: crowd.tally.slot(at) });
  }, slotMs);
  // Making a thousand clients took a moment that belongs to no client's latency.
  started = performance.now();
  say({ type: 'began', at: performance.timeOrigin + started });
  run();
}

takeOrders<ToCrowd>((order) => {
  if (order.type === 'begin') begin(order.settings);
  else process.exit(0);
});
