/**
 * The load process of a scenario: all virtual clients, on one event loop that shares nothing with what is measured.
 */
import { say as sayAny, sayFailed, soon, takeOrders } from '../load-child.js';
import { sendOverStreams } from '../send-streams.js';
import { sendUnary } from '../send-unary.js';
import type { Sender, SenderEvents } from '../sender.js';
import { publish } from '../unary-methods.js';
import type { FromLoad, LoadSettings, ScenarioTarget, ToLoad } from './load-protocol.js';
import { type Group, type Plan, planSeconds } from './plan.js';
import { createSenders } from './senders.js';

const say = (message: FromLoad): void => sayAny(message);

/** A group's connections, as many as its part of all clients. */
function openSender(
  { url, keys, connections: all }: ScenarioTarget,
  { groups }: Plan,
  group: Group,
  events: SenderEvents,
): Sender {
  const { clients, calls, customer } = group;
  const everyone = groups.reduce((sum, one) => sum + one.clients, 0);
  const connections = Math.max(1, Math.round((all * clients) / everyone));
  const to = { url, key: keys[customer] ?? '', connections };
  if (calls === 'stream') return sendOverStreams({ ...to, streams: Math.ceil(clients / connections) }, events);
  return sendUnary({ ...to, protocol: calls }, publish, events);
}

function begin({ plan, target, seed, slotMs, patienceMs }: LoadSettings): void {
  let started = performance.now();
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;
  const now = () => performance.now() - started;
  /** Sends what is due and comes back when the next is: by timer, or after the next round of I/O when an answer came. */
  const run = (): void => {
    if (stopped) return;
    const wait = senders.tick();
    clearTimeout(timer);
    if (senders.error !== undefined) stop(senders.error);
    else timer = setTimeout(run, Math.max(1, Math.floor(wait)));
  };
  const senders = createSenders({
    plan,
    seed,
    run: (Date.now() ^ (process.pid << 16)) >>> 0,
    now,
    open: (group, events) => openSender(target, plan, group, events),
    wake: soon(run),
  });
  const end = planSeconds(plan) * 1000;
  const stop = (error?: Error): void => {
    if (stopped) return;
    stopped = true;
    clearInterval(slots);
    clearTimeout(timer);
    if (error !== undefined) {
      sayFailed(error);
      return;
    }
    say({ type: 'slot', slot: senders.tally.slot(now(), senders.overdue) });
    senders.giveUp();
    say({ type: 'result', result: senders.tally.result() });
  };
  const slots = setInterval(() => {
    const at = now();
    if ((at > end && senders.idle) || at > end + patienceMs) stop();
    else say({ type: 'slot', slot: senders.tally.slot(at, senders.overdue) });
  }, slotMs);
  // Making a thousand clients took a moment that belongs to no client's latency.
  started = performance.now();
  say({ type: 'began', at: performance.timeOrigin + started });
  run();
}

takeOrders<ToLoad>((order) => {
  if (order.type === 'begin') begin(order.settings);
  else process.exit(0);
});
