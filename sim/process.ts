/**
 * A simulated process: it can be killed, which loses all that it knew, and frozen, after which it continues as if nothing had happened
 * (a zombie). Its clocks are its own: they start anywhere, run fast or slow, and the wall clock is set now and then.
 */
import { integer } from '../lib/testing/batches.js';
import type { World } from './world.js';

export interface Process {
  readonly name: string;
  readonly alive: boolean;
  readonly frozen: boolean;
  /** Monotonic ms of this process. */
  now(): number;
  /** Its idea of the ms since 1970. */
  wall(): number;
  /** Runs `run` after `ms` of its own time; later when it is frozen then, never when it has died. Returns the canceller. */
  after(ms: number, run: () => void): () => void;
  /** Something from outside reaches it after `ms` of the world's time; the same holds. */
  deliver(ms: number, run: () => void): void;
  kill(): void;
  freeze(ms: number): void;
  thaw(): void;
  /** Somebody sets its wall clock, by so many ms. */
  setClock(ms: number): void;
  /** Calls back at once when it dies: what others notice of it. */
  onDeath(run: () => void): void;
}

export function createProcess(world: World, name: string): Process {
  const { time, random } = world;
  const bornAt = time.now;
  const offset = random() * 1e6;
  const rate = 1 + (random() - 0.5) * 2e-3;
  let skew = integer(random, -3_000, 3_000);
  let alive = true;
  let frozenUntil = 0;
  let frozen = false;
  /** What came meanwhile, in its order. */
  const postponed: (() => void)[] = [];
  const mourners: (() => void)[] = [];

  /** Wraps what is to run here, so that a dead process does nothing and a frozen one does it later. */
  const mine = (run: () => void) => (): void => {
    if (!alive) return;
    if (frozen || postponed.length > 0) postponed.push(run);
    else run();
  };

  const catchUp = (): void => {
    if (!alive || frozen) return;
    const next = postponed.shift();
    if (next === undefined) return;
    if (postponed.length > 0) time.after(0, catchUp);
    next();
  };

  const thaw = (): void => {
    if (!frozen || !alive) return;
    world.trace?.(name, 'goes on');
    frozen = false;
    time.after(0, catchUp);
  };

  return {
    name,
    get alive() {
      return alive;
    },
    get frozen() {
      return frozen;
    },
    now: () => offset + (time.now - bornAt) * rate,
    wall: () => Math.floor(world.startMs + skew + (time.now - bornAt) * rate + bornAt),
    after(ms, run) {
      let cancelled = false;
      // A shade later than asked, as timers are: rounding must not make them early.
      const cancel = time.after(
        ms / rate + 1e-6,
        mine(() => {
          if (!cancelled) run();
        }),
      );
      return () => {
        cancelled = true;
        cancel();
      };
    },
    deliver: (ms, run) => void time.after(ms, mine(run)),
    kill() {
      if (!alive) return;
      alive = false;
      world.trace?.(name, 'dies');
      for (const mourn of mourners) mourn();
    },
    freeze(ms) {
      if (!alive || world.calm) return;
      world.trace?.(name, `freezes for ${Math.round(ms)} ms`);
      frozen = true;
      frozenUntil = Math.max(frozenUntil, time.now + ms);
      time.after(ms, () => {
        if (time.now >= frozenUntil) thaw();
      });
    },
    thaw,
    setClock(ms) {
      world.trace?.(name, `has its clock set by ${ms} ms`);
      skew += ms;
    },
    onDeath: (run) => void mourners.push(run),
  };
}
