import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { type Circuit, type CircuitOptions, createCircuit } from './circuit.js';
import { StatementError, type StatementErrorKind } from './errors.js';

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const failing = (kind: StatementErrorKind, code?: number) => () =>
  Promise.reject(new StatementError(kind, kind, code, undefined));
const ended = (work: Promise<unknown>): Promise<StatementError | undefined> =>
  work.then(
    () => undefined,
    (error: unknown) => error as StatementError,
  );

async function withCircuit(options: Partial<CircuitOptions>, use: (circuit: Circuit) => Promise<void>): Promise<void> {
  const circuit = createCircuit({ name: 'test', logger: silentLogger, random: () => 0.5, ...options });
  try {
    await use(circuit);
  } finally {
    circuit.close();
  }
}

/** Until it is open, and how many statements that took. */
async function fail(circuit: Circuit, code?: number): Promise<number> {
  for (let sent = 0; ; sent++) {
    if (circuit.stats().state === 2) return sent;
    assert.ok(sent < 20, 'it never opened');
    await ended(circuit.run(failing('transient', code)));
  }
}

test('CIRCUIT-2: it opens when more than half of the last statements failed, and then sends nothing', async () => {
  await withCircuit({}, async (circuit) => {
    assert.is(await fail(circuit), 3);
  });
  await withCircuit({}, async (circuit) => {
    for (let i = 0; i < 100; i++) await circuit.run(async () => i);
    assert.is(await fail(circuit, 243), 4, 'of the last six');
    let sent = false;
    const error = await ended(
      circuit.run(async () => {
        sent = true;
      }),
    );
    assert.equal([sent, error?.kind, error?.unsent], [false, 'transient', true]);
    assert.match(error?.message ?? '', /left alone for another \d+ ms, after: StatementError: transient/);
    assert.is(circuit.stats().heldBack, 1);
  });
  await withCircuit({}, async (circuit) => {
    for (let i = 0; i < 60; i++) await ended(circuit.run(i % 2 === 0 ? async () => i : failing('transient')));
    assert.is(circuit.stats().state, 0, 'one half is not more than half');
  });
});

test('CIRCUIT-1: what ClickHouse answers about the statement does not open it, and closes it', async () => {
  await withCircuit({}, async (circuit) => {
    for (const kind of ['busy', 'content', 'fatal'] as const) {
      for (let i = 0; i < 20; i++) assert.is((await ended(circuit.run(failing(kind, 216))))?.kind, kind);
    }
    assert.equal(circuit.stats(), { state: 0, closed: 0, halfOpen: 0, open: 0, heldBack: 0 });
    await fail(circuit);
    await sleep(220);
    assert.is((await ended(circuit.run(failing('busy', 216))))?.kind, 'busy');
    assert.is(circuit.stats().state, 0);
  });
});

test('CIRCUIT-3: half open, one statement goes and the others wait; a failure opens it for longer', async () => {
  await withCircuit({}, async (circuit) => {
    await fail(circuit);
    await sleep(220);
    let going = 0;
    let most = 0;
    const slow = async (): Promise<never> => {
      most = Math.max(most, ++going);
      await sleep(50);
      going--;
      throw new StatementError('transient', 'still away', undefined, undefined);
    };
    const errors = await Promise.all(Array.from({ length: 8 }, () => ended(circuit.run(slow))));
    assert.is(most, 1);
    assert.is(errors.filter((error) => error?.unsent).length, 7);
    assert.equal([circuit.stats().state, circuit.stats().halfOpen, circuit.stats().open], [2, 1, 2]);
    const ms = Number(/another (\d+) ms/.exec((await ended(circuit.run(async () => 1)))?.message ?? '')?.[1]);
    assert.ok(ms > 200 && ms <= 400, `${ms} ms: twice as long as the first time`);
    await sleep(420);
    const all = Array.from({ length: 8 }, (_, i) => circuit.run(async () => i));
    assert.equal(await Promise.all(all), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.is(circuit.stats().state, 0);
  });
});

test('CIRCUIT-4: it probes by itself, one at a time, and tells at once when ClickHouse is back', async () => {
  let back = false;
  let probes = 0;
  let closedAt = 0;
  const probe = async (): Promise<void> => {
    probes++;
    if (!back) throw new StatementError('transient', 'away', undefined, undefined);
  };
  await withCircuit({ probe, onClosed: () => (closedAt = performance.now()) }, async (circuit) => {
    await fail(circuit);
    await sleep(1_500);
    assert.ok(probes >= 1 && probes <= 4, `${probes} probes in 1.5 s at 200, 400, 800 ms`);
    assert.is(circuit.stats().state, 2);
    back = true;
    const since = performance.now();
    while (closedAt === 0 && performance.now() - since < 10_000) await sleep(10);
    assert.ok(closedAt > 0, 'it took no question');
    assert.is(await circuit.run(async () => 'sent'), 'sent');
    const seen = probes;
    await sleep(300);
    assert.is(probes, seen, 'a closed circuit is not probed');
  });
});

test('a wall clock that is set back does not keep it open', async () => {
  const wall = Date.now;
  let now = 0;
  await withCircuit({ now: () => now }, async (circuit) => {
    await fail(circuit, 243);
    try {
      Date.now = () => wall() - 3_600_000;
      assert.is((await ended(circuit.run(async () => 1)))?.unsent, true);
      now += 10_000;
      assert.is(await circuit.run(async () => 'sent'), 'sent');
      assert.is(circuit.stats().state, 0);
    } finally {
      Date.now = wall;
    }
  });
});

test.run();
