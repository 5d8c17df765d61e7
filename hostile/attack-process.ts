/** One attack, in a process of its own, so that its event loop is not the good client's (see attacker.ts). */
import { type Field, newCounts } from './attack.js';
import { type AttackOrder, type FromAttacker, maxSeconds } from './attacker.js';
import { attackNamed } from './attacks/index.js';

const say = (message: FromAttacker): Promise<void> =>
  new Promise((resolve) => {
    if (process.send === undefined) resolve();
    else process.send(message, () => resolve());
  });

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const countsEveryMs = 500;
/** For a script to wait for the last answers, once its time is over. */
const lastWordsMs = 25_000;

/** How often a pause looks whether the time is over. */
const tickMs = 50;

function openField(order: AttackOrder): Field {
  const since = performance.now();
  const counts = newCounts();
  const { seconds, atLeast = {} } = order;
  const enough = (): boolean =>
    counts.answered >= (atLeast.answered ?? 0) && counts.bytesOut >= (atLeast.bytesOut ?? 0);
  const field: Field = {
    target: order.target,
    keys: order.keys,
    counts,
    scaled: (full) => Math.max(1, Math.round(full * order.scale)),
    get over() {
      const passed = (performance.now() - since) / 1_000;
      return passed >= seconds && (enough() || passed >= maxSeconds);
    },
    async pause(ms) {
      const until = performance.now() + ms;
      do {
        await sleep(Math.max(0, Math.min(tickMs, until - performance.now())));
      } while (!field.over && performance.now() < until);
    },
    untilOver: () => field.pause(Number.POSITIVE_INFINITY),
  };
  return field;
}

async function attack(order: AttackOrder): Promise<void> {
  const found = attackNamed(order.attack);
  const field = openField(order);
  const timer = setInterval(() => void say({ type: 'counts', counts: field.counts }), countsEveryMs);
  // The time is a bound also for a script that waits for an answer that never comes.
  await Promise.race([found.run(field), field.untilOver().then(() => sleep(lastWordsMs))]);
  clearInterval(timer);
  await say({ type: 'done', counts: field.counts });
}

process.on('disconnect', () => process.exit(1));
process.once('message', () => {
  attack(JSON.parse(process.argv[2] ?? '{}') as AttackOrder)
    .catch((error: unknown) => say({ type: 'failed', message: (error as Error).stack ?? String(error) }))
    .finally(() => process.exit(0));
});
void say({ type: 'ready' });
