import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { SluiceError } from '../../lib/errors.js';
import { createRandom, integer, pick, type Random } from '../../lib/testing/batches.js';
import { KiB } from '../../lib/units.js';
import { createUnfinished, type UnfinishedBody, type UnfinishedBytes } from './unfinished.js';

interface TestBody {
  readonly body: UnfinishedBody;
  readonly name: string;
  paused: boolean;
  refusal: SluiceError | undefined;
  held: number;
  hold(bytes: number): void;
}

/** A budget of 1,000 KiB, 600 of a tenant, with a clock by hand. The first letter of a body is its tenant. */
function scene() {
  let tick: (() => void) | undefined;
  const full = new Set<string>();
  const unfinished: UnfinishedBytes = createUnfinished({
    maxBytes: 1_000 * KiB,
    maxTenantBytes: 600 * KiB,
    beyondNarrow: () => 0,
    isFull: (tenant) => full.has(tenant),
    random: () => 0.5,
    everyTick: (callback) => {
      tick = callback;
      return () => {
        tick = undefined;
      };
    },
  });
  const open = (name: string): TestBody => {
    const one: TestBody = {
      name,
      paused: false,
      refusal: undefined,
      held: 0,
      body: unfinished.open(name[0] as string, {
        pause: () => {
          one.paused = true;
        },
        resume: () => {
          one.paused = false;
        },
        refuse: (error) => {
          one.refusal = error;
          one.held = 0;
        },
      }),
      hold(kib) {
        const came = kib * KiB - one.held;
        one.held = kib * KiB;
        one.body.hold(kib * KiB, Math.max(came, 0));
      },
    };
    return one;
  };
  return {
    unfinished,
    open,
    /** Tenants of which a whole batch waits for room in admission. */
    full,
    seconds(count: number, each: () => void = () => {}) {
      for (let i = 0; i < count; i++) {
        each();
        tick?.();
      }
    },
    get ticking() {
      return tick !== undefined;
    },
  };
}

test('BODY-1: what is held is counted until it is handed over, and nothing is left behind', () => {
  const { unfinished, open, seconds, ...more } = scene();
  const [a, b] = [open('a1'), open('b1')];
  a.hold(100);
  b.hold(50);
  a.hold(150);
  assert.is(unfinished.bytes, 200 * KiB);
  a.hold(0);
  assert.is(a.body.phase, 'idle');
  b.body.close();
  b.body.close();
  b.hold(70);
  assert.is(unfinished.bytes, 0);
  seconds(2);
  assert.not(more.ticking, 'no timer runs for nothing');
});

test('BODY-2: past the bound of a tenant its bodies are paused, but for the eldest, and others are not', () => {
  const { open } = scene();
  const bodies = ['a1', 'a2', 'a3'].map(open);
  const [a1, a2, a3] = bodies as [TestBody, TestBody, TestBody];
  const b = open('b1');
  for (const body of bodies) body.hold(190);
  a2.hold(250);
  a3.hold(210);
  a1.hold(300);
  b.hold(300);
  assert.equal(
    [a1, a2, a3, b].map(({ paused }) => paused),
    [false, true, true, false],
  );
  a1.hold(0);
  assert.equal([a2.paused, a3.paused], [false, false], 'there is room again');
});

test('BODY-2: past the bound in all, each tenant still has a body that goes on', () => {
  const { open } = scene();
  const all = ['a1', 'a2', 'b1', 'b2', 'c1', 'c2'].map(open);
  for (const body of all) body.hold(160);
  for (const body of all) body.hold(180);
  const going = all.filter(({ paused }) => !paused).map(({ name }) => name);
  assert.ok(['a1', 'b1', 'c1'].every((name) => going.includes(name)));
  assert.ok(going.length < 6);
});

test('BODY-2: a body that has the turn and does not become whole gives it to the next', () => {
  const { open, seconds } = scene();
  const [stalled, next, third] = ['a1', 'a2', 'a3'].map(open) as [TestBody, TestBody, TestBody];
  stalled.hold(590);
  next.hold(60);
  third.hold(10);
  assert.equal([stalled.paused, next.paused, third.paused], [false, true, true]);
  seconds(2);
  assert.equal([stalled.paused, next.paused, third.paused], [true, false, true]);
  next.hold(0);
  assert.equal([stalled.paused, next.paused, third.paused], [true, false, false], 'and then the one after it');
});

test('BODY-2: while whole batches wait for room in admission, no body has the turn', () => {
  const { open, full, seconds } = scene();
  const [whole, next, third] = ['a1', 'a2', 'a3'].map(open) as [TestBody, TestBody, TestBody];
  whole.hold(500);
  full.add('a');
  whole.body.wait();
  next.hold(60);
  third.hold(60);
  assert.equal([next.paused, third.paused], [true, true]);
  seconds(10);
  assert.equal([next.paused, third.paused], [true, true], 'a message that becomes whole would only be held longer');
  full.delete('a');
  whole.body.close();
  assert.equal([next.paused, third.paused], [false, false]);
});

test('BODY-2: what may still come of paused bodies counts', () => {
  const { open } = scene();
  const bodies = Array.from({ length: 12 }, (_, i) => open(`a${i}`));
  for (const body of bodies) body.hold(10);
  // The ninth makes 90 KiB, and a window of 64 KiB for each.
  assert.is(bodies.filter(({ paused }) => paused).length, 4);
  for (const body of bodies) if (body.paused) body.hold(10 + 64);
  const held = (): number => bodies.reduce((sum, body) => sum + body.held, 0) / KiB;
  // Those that are read bring as much as they may.
  for (let more = 1; more <= 64; more++) for (const body of bodies) if (!body.paused) body.hold(10 + more);
  assert.ok(held() <= 4 * 74 + 600, `${held()} KiB`);
});

test('BODY-3: a body that has the turn is refused, too, when those that wait for other reasons hold the whole bound', () => {
  const { open } = scene();
  for (const tenant of ['a', 'b']) {
    for (let i = 0; i < 4; i++) {
      const waiting = open(`${tenant}${i}`);
      waiting.hold(tenant === 'a' ? 140 : 160);
      waiting.body.wait();
    }
  }
  const [spared, refused] = [open('a9'), open('b9')];
  spared.hold(650);
  assert.is(spared.refusal, undefined, 'the others hold 560 of 600, and it 650');
  spared.body.close();
  refused.hold(650);
  assert.is(refused.refusal?.code, 'overloaded', 'the others hold 640 of 600');
});

test('BODY-3: past twice the bound of a tenant, what grows is refused with a time to come back, and the turn is spared', () => {
  const { open, unfinished } = scene();
  const bodies = Array.from({ length: 10 }, (_, i) => open(`a${i}`));
  for (const body of bodies) body.hold(119);
  bodies[5]?.hold(200);
  assert.is(bodies[5]?.refusal?.code, 'overloaded');
  assert.is(bodies[5]?.refusal?.retryAfterMs, 1_000);
  for (const body of bodies.slice(6)) body.hold(150);
  bodies[0]?.hold(400);
  assert.is(bodies[0]?.refusal, undefined);
  assert.ok(unfinished.refused.full >= 1);
});

test('BODY-3: past twice the bound in all, the tenant that holds most gives way to the others', () => {
  const { open } = scene();
  const many = ['a', 'b'].flatMap((tenant) => Array.from({ length: 10 }, (_, i) => open(`${tenant}${i}`)));
  for (const body of many) body.hold(98);
  const small = [open('c0'), open('c1')] as const;
  small[0].hold(50);
  small[1].hold(30);
  assert.equal([small[0].refusal, small[1].refusal], [undefined, undefined]);
  assert.is(many.filter(({ refusal }) => refusal !== undefined).length, 1);
});

test('BODY-4: a silent body is refused after 15 s, but not while the gateway does not read it', () => {
  const { open, seconds } = scene();
  const [silent, waiting, empty, slow] = ['a1', 'a2', 'a3', 'a4'].map(open) as [TestBody, TestBody, TestBody, TestBody];
  silent.hold(1);
  waiting.hold(1);
  waiting.body.wait();
  empty.body.expect();
  slow.hold(1);
  seconds(15, () => slow.body.hold(KiB, 1));
  assert.is(silent.refusal, undefined);
  seconds(1, () => slow.body.hold(KiB, 1));
  assert.is(silent.refusal?.code, 'body_silent');
  assert.is(empty.refusal?.code, 'body_silent');
  assert.equal([waiting.refusal, slow.refusal], [undefined, undefined]);
  waiting.body.go();
  seconds(16, () => slow.body.hold(KiB, 1));
  assert.is(waiting.refusal?.code, 'body_silent');
});

test('BODY-4: a body that drips is refused once others wait for its room', () => {
  const { open, seconds } = scene();
  const [drip, other] = ['a1', 'a2'].map(open) as [TestBody, TestBody];
  drip.hold(100);
  drip.body.hold(590 * KiB, 0);
  seconds(20, () => drip.body.hold(590 * KiB, 1));
  assert.is(drip.refusal, undefined, 'it brought 100 KiB');
  seconds(100, () => drip.body.hold(590 * KiB, 1));
  assert.is(drip.refusal, undefined, 'none waits');
  other.hold(60);
  seconds(1);
  assert.is(drip.refusal?.code, 'overloaded');
  assert.not(other.paused);
});

test('a body that waits while it is paused is read again afterwards', () => {
  const { open } = scene();
  const [first, second] = ['a1', 'a2'].map(open) as [TestBody, TestBody];
  first.hold(590);
  second.hold(60);
  assert.ok(second.paused);
  second.body.wait();
  assert.not(second.paused);
  first.hold(0);
  second.body.go();
  assert.not(second.paused);
});

test('in random orders of events, bytes are counted right, twice the bound holds, and all bodies become whole in the end', () => {
  const random = createRandom(7);
  for (let round = 0; round < 30; round++) {
    const { open, unfinished, seconds } = scene();
    const names = ['a', 'b', 'c'];
    let bodies = Array.from({ length: 60 }, (_, i) => ({
      of: open(`${pick(random, names)}${i}`),
      left: integer(random, 1, 200),
    }));
    for (let step = 0; step < 50_000 && bodies.length > 0; step++) {
      if (random() < 0.02) seconds(1);
      const one = pick(random, bodies);
      if (one.of.paused && one.of.refusal === undefined) continue;
      one.left -= 1;
      one.of.body.hold((200 - one.left) * KiB, KiB);
      if (one.left > 0 && one.of.refusal === undefined) continue;
      one.of.body.close();
      bodies = bodies.filter((other) => other !== one);
      assert.ok(unfinished.bytes <= 2 * 1_000 * KiB + 3 * 200 * KiB, `${unfinished.bytes}`);
    }
    assert.is(bodies.length, 0, `round ${round}`);
    assert.is(unfinished.bytes, 0);
  }
});

test('BODY-6: a paused body that drips is heard and refused, and one that is whole is heard and stays', () => {
  const { open, seconds, unfinished } = scene();
  const first = open('a1');
  first.hold(590);
  const drips = Array.from({ length: 100 }, (_, i) => open(`a${i + 2}`));
  for (const one of drips) one.hold(1);
  // All of it has come, and the sender waits for the answer.
  const [whole, full] = [open('a200'), open('a201')];
  whole.hold(1);
  full.hold(1);
  assert.ok([...drips, whole, full].every(({ paused }) => paused));
  full.hold(40);
  let second = 0;
  const pass = (): void => {
    second++;
    first.body.hold(590 * KiB, 4 * KiB);
    for (const one of drips) if (one.refusal === undefined && second % 5 === 0) one.body.hold(one.held, 1);
    if (!whole.paused && whole.held > 0) whole.hold(0);
    if (!full.paused && full.held > 0) full.body.hold(full.held, 2 * KiB);
  };
  seconds(14, pass);
  assert.is(unfinished.refused.slow, 0);
  seconds(12, pass);
  assert.equal([drips.filter(({ refusal }) => refusal !== undefined).length > 60, first.refusal], [true, undefined]);
  seconds(20, pass);
  const left = drips.filter(({ refusal }) => refusal === undefined);
  assert.ok(
    left.length < 10 && left.every(({ paused }) => !paused),
    'all that drip are gone, or there is room for them',
  );
  assert.equal([whole.refusal, full.refusal], [undefined, undefined]);
  assert.is(whole.held, 0, 'what was whole has been handed over');
});

/** A body that comes at 1.5 to 4 KiB a second, with gaps of up to 5 s, and with as much as a window allows while it is paused. */
class Phone {
  /** Bytes to come. */
  left: number;
  private readonly rate: number;
  /** Seconds until it goes on. */
  private gap = 0;
  /** Bytes that it would have sent if it could. */
  private owed = 0;
  /** Bytes that came while it is paused. */
  private parked = 0;

  constructor(
    readonly of: TestBody,
    private readonly random: Random,
  ) {
    this.rate = integer(random, 1536, 4096);
    this.left = integer(random, 60, 120) * KiB;
  }

  second(): void {
    if (this.left <= 0 || this.of.refusal !== undefined) return;
    this.owed += this.rate;
    if (this.isInGap()) return;
    const { of } = this;
    if (!of.paused) this.parked = 0;
    const bytes = Math.min(this.owed, this.left, of.paused ? 64 * KiB - this.parked : this.owed);
    this.owed -= bytes;
    this.left -= bytes;
    if (of.paused) this.parked += bytes;
    of.held += bytes;
    of.body.hold(of.held, bytes);
    this.handOver();
  }

  /** What is whole, and may be handed over, is. */
  handOver(): void {
    if (this.left <= 0 && !this.of.paused && this.of.held > 0) this.of.hold(0);
  }

  private isInGap(): boolean {
    if (this.gap > 0) return --this.gap > 0;
    if (this.random() >= 0.1) return false;
    this.gap = integer(this.random, 1, 5);
    return true;
  }
}

test('BODY-6: slow phones are not refused, whatever others do', () => {
  const random = createRandom(11);
  for (let round = 0; round < 10; round++) {
    const { open, seconds, unfinished } = scene();
    const phones = Array.from({ length: 6 }, (_, i) => new Phone(open(`${'ab'[i % 2]}${i}`), random));
    const drips = Array.from({ length: 30 }, (_, i) => open(`${'ab'[i % 2]}${i + 10}`));
    for (const drip of drips) drip.hold(integer(random, 18, 36));
    for (const { of } of phones) of.hold(1);
    let second = 0;
    seconds(400, () => {
      second++;
      for (const drip of drips) if (drip.refusal === undefined && second % 5 === 0) drip.body.hold(drip.held, 1);
      for (const phone of phones) phone.second();
      for (const phone of phones) phone.handOver();
    });
    assert.equal(
      phones.map(({ of, left }) => [of.refusal?.code, left <= 0, of.held]),
      phones.map(() => [undefined, true, 0]),
      `round ${round}`,
    );
    assert.not(unfinished.crowded, `round ${round}: what drips keeps no room that others wait for`);
    for (const drip of drips) drip.body.close();
    assert.is(unfinished.bytes, 0, `round ${round}`);
  }
});

test.run();
