import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { SluiceError } from '../../lib/errors.js';
import { createRandom, integer, pick } from '../../lib/testing/batches.js';
import { type Admission, createAdmission } from './admission.js';

const never = new AbortController().signal;

/** As a promise also when there is room already. */
const room = async (admission: Admission, tenant: string, bytes: number, signal: AbortSignal): Promise<void> =>
  admission.room(tenant, bytes, signal);

/** An admission with a clock and macrotasks that the test moves. */
function bench(maxBytes: number, maxTenantBytes: number) {
  let time = 0;
  let tasks: (() => void)[] = [];
  const admission = createAdmission({
    maxBytes,
    maxTenantBytes,
    now: () => time,
    random: () => 0.5,
    later: (task) => tasks.push(task),
  });
  return {
    admission,
    advance: (ms: number) => {
      time += ms;
    },
    /** The end of this macrotask: promises first, then what was put off. */
    async macrotask() {
      await new Promise(setImmediate);
      const due = tasks;
      tasks = [];
      for (const task of due) task();
      await new Promise(setImmediate);
    },
  };
}

function refusal(admission: Admission, tenant: string, bytes: number): SluiceError {
  try {
    admission.take(tenant, bytes);
  } catch (error) {
    if (error instanceof SluiceError) return error;
    throw error;
  }
  throw new Error('it was admitted');
}

test('what passes a bound is refused as overloaded, with a delay, and releasing makes room', () => {
  const { admission } = bench(100, 60);
  admission.take('a', 60);
  const mine = refusal(admission, 'a', 1);
  assert.is(mine.code, 'overloaded');
  assert.match(mine.message, /this tenant/);
  assert.ok((mine.retryAfterMs ?? 0) >= 25);
  admission.take('b', 40);
  assert.match(refusal(admission, 'c', 1).message, /The gateway holds its limit of 100 bytes/);
  admission.release('a', 60);
  admission.take('c', 60);
  assert.is(admission.bytes, 100);
});

test('a batch above the bound is admitted when nothing else is held', () => {
  const { admission } = bench(100, 60);
  admission.take('a', 500);
  refusal(admission, 'a', 1);
  refusal(admission, 'b', 1);
  admission.release('a', 500);
  assert.is(admission.bytes, 0);
});

test('a batch that turns out larger gets the rest when it fits, or when nothing else is held', () => {
  const { admission } = bench(100, 60);
  admission.take('a', 30);
  admission.take('a', 90, 30);
  assert.is(admission.bytes, 120);
  admission.release('a', 120);
  admission.take('a', 30);
  admission.take('a', 20);
  assert.throws(
    () => admission.take('a', 20, 20),
    ({ code }: SluiceError) => code === 'overloaded',
  );
  admission.take('a', 10, 20);
  admission.release('a', 60);
  assert.is(admission.bytes, 0);
});

test('the delay follows the rate at which the log drains, and grows when it stalls', () => {
  const { admission, advance } = bench(1_000_000, 1_000_000);
  admission.take('a', 1_000_000);
  for (let i = 0; i < 10; i++) {
    advance(500);
    admission.release('a', 500_000);
    admission.take('a', 500_000);
  }
  // 1,000 bytes a ms: half of the bound takes 500 ms.
  assert.is(refusal(admission, 'a', 1).retryAfterMs, 500);
  advance(60_000);
  assert.is(refusal(admission, 'a', 1).retryAfterMs, 1_000);
});

test('a waiter is admitted when enough is released, and its bytes are kept for it', async () => {
  const { admission } = bench(100, 100);
  admission.take('a', 100);
  let admitted = false;
  const waiting = room(admission, 'a', 50, never).then(() => {
    admitted = true;
    // What the wait was for is still there, in spite of the newcomer below.
    admission.take('a', 50);
  });
  admission.release('a', 40);
  await new Promise(setImmediate);
  assert.not(admitted);
  admission.release('a', 20);
  refusal(admission, 'b', 20);
  await waiting;
  assert.is(admission.bytes, 90);
});

test('unused room goes to the next waiter', async () => {
  const { admission, macrotask } = bench(100, 100);
  admission.take('a', 100);
  const first = room(admission, 'b', 80, never);
  let second = false;
  void room(admission, 'c', 80, never).then(() => {
    second = true;
  });
  admission.release('a', 100);
  await first;
  assert.not(second);
  await macrotask();
  assert.ok(second);
});

test('tenants take turns, however many waiters one has', async () => {
  const { admission, macrotask } = bench(10, 10);
  admission.take('z', 10);
  const order: string[] = [];
  const wait = (tenant: string, name: string) =>
    room(admission, tenant, 10, never).then(() => {
      order.push(name);
      admission.take(tenant, 10);
    });
  for (let i = 1; i <= 3; i++) void wait('a', `a${i}`);
  for (let i = 1; i <= 2; i++) void wait('b', `b${i}`);
  let holder = 'z';
  for (let i = 0; i < 5; i++) {
    admission.release(holder, 10);
    await macrotask();
    holder = order[i]?.[0] ?? '';
  }
  assert.equal(order, ['a1', 'b1', 'a2', 'b2', 'a3']);
});

test('a tenant at its own bound holds up no other', async () => {
  const { admission } = bench(100, 50);
  admission.take('a', 50);
  let mine = false;
  void room(admission, 'a', 10, never).then(() => {
    mine = true;
  });
  await room(admission, 'b', 50, never);
  admission.take('b', 50);
  assert.not(mine);
});

test('an aborted waiter leaves the line with its reason, and lets the next one through', async () => {
  const { admission } = bench(100, 100);
  admission.take('a', 50);
  const gone = new AbortController();
  const large = room(admission, 'b', 60, gone.signal);
  let small = false;
  void room(admission, 'c', 40, never).then(() => {
    small = true;
  });
  await new Promise(setImmediate);
  assert.not(small, 'ADMIT-2: not overtaken while it waits');
  gone.abort(new Error('the call ended'));
  const reason = await large.then(
    () => 'admitted',
    (error: Error) => error.message,
  );
  assert.is(reason, 'the call ended');
  await new Promise(setImmediate);
  assert.ok(small);
  const again = await room(admission, 'd', 1, AbortSignal.abort(new Error('before'))).catch(
    (error: Error) => error.message,
  );
  assert.is(again, 'before');
});

/** Callers of four tenants that take, wait and give back at random. */
function randomCallers(seed: number) {
  const random = createRandom(seed);
  const { admission, macrotask } = bench(200, 120);
  const held: { tenant: string; bytes: number }[] = [];
  const heldOf = (tenant?: string): number =>
    held.reduce((sum, one) => sum + (tenant === undefined || one.tenant === tenant ? one.bytes : 0), 0);
  let waiting = 0;

  const take = (tenant: string, bytes: number): void => {
    try {
      admission.take(tenant, bytes);
    } catch (error) {
      assert.ok(error instanceof SluiceError && error.code === 'overloaded');
      return;
    }
    held.push({ tenant, bytes });
    assert.is(admission.bytes, heldOf());
    assert.ok(heldOf() <= 200 && heldOf(tenant) <= 120, `seed ${seed}: ${heldOf(tenant)} of ${heldOf()}`);
  };
  const wait = (tenant: string, bytes: number): void => {
    waiting++;
    const abort = new AbortController();
    room(admission, tenant, bytes, abort.signal).then(
      () => {
        waiting--;
        // Some never use what they were given.
        if (random() < 0.8) take(tenant, bytes);
      },
      () => {
        waiting--;
      },
    );
    if (random() < 0.2) abort.abort(new Error('gone'));
  };
  const giveBack = (index: number): void => {
    for (const { tenant, bytes } of held.splice(index, 1)) admission.release(tenant, bytes);
  };

  return {
    admission,
    async step() {
      const tenant = pick(random, ['a', 'b', 'c', 'd']);
      const bytes = integer(random, 1, 100);
      const what = random();
      if (what < 0.3) take(tenant, bytes);
      else if (what < 0.6) wait(tenant, bytes);
      else giveBack(integer(random, 0, held.length - 1));
      if (random() < 0.5) await macrotask();
    },
    /** Gives all back until no caller waits. @returns how many wait still */
    async end() {
      for (let i = 0; i < 500 && (waiting > 0 || held.length > 0); i++) {
        while (held.length > 0) giveBack(0);
        await macrotask();
      }
      return waiting;
    },
  };
}

test('no bound is passed and no waiter is forgotten, in random orders of events (seeded)', async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const callers = randomCallers(seed);
    for (let step = 0; step < 200; step++) await callers.step();
    assert.is(await callers.end(), 0, `seed ${seed}: every waiter was served`);
    assert.is(callers.admission.bytes, 0);
  }
});

test.run();
