/** One attack, in a process of its own, so that its event loop is not the good client's (see attacker.ts). */
import { type Field, newCounts } from './attack.js';
import type { AttackOrder, FromAttacker } from './attacker.js';
import { attackNamed } from './attacks/index.js';

const say = (message: FromAttacker): Promise<void> =>
  new Promise((resolve) => {
    if (process.send === undefined) resolve();
    else process.send(message, () => resolve());
  });

const countsEveryMs = 500;
/** For a script to wait for the last answers, once its time is over. */
const lastWordsMs = 8_000;

async function attack(order: AttackOrder): Promise<void> {
  const found = attackNamed(order.attack);
  const until = performance.now() + order.seconds * 1_000;
  const counts = newCounts();
  const left = (): number => Math.max(0, until - performance.now());
  const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, Math.min(ms, left())));
  const field: Field = {
    target: order.target,
    keys: order.keys,
    counts,
    scaled: (full) => Math.max(1, Math.round(full * order.scale)),
    get over() {
      return left() === 0;
    },
    pause,
    untilOver: () => pause(Number.POSITIVE_INFINITY),
  };
  const timer = setInterval(() => void say({ type: 'counts', counts }), countsEveryMs);
  // The time is a bound also for a script that waits for an answer that never comes.
  const late = new Promise((resolve) => setTimeout(resolve, order.seconds * 1_000 + lastWordsMs));
  await Promise.race([found.run(field), late]);
  clearInterval(timer);
  await say({ type: 'done', counts });
}

process.on('disconnect', () => process.exit(1));
process.once('message', () => {
  attack(JSON.parse(process.argv[2] ?? '{}') as AttackOrder)
    .catch((error: unknown) => say({ type: 'failed', message: (error as Error).stack ?? String(error) }))
    .finally(() => process.exit(0));
});
void say({ type: 'ready' });
