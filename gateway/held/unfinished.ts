/**
 * What the gateway holds of requests and answers that are not whole, and the bounds of it. The room:
 *
 *   unfinished.ts       this file: bounds the bytes of unfinished requests, in all and per tenant
 *   held.ts             the bounds and the memory that all calls share
 *   unread-answers.ts   counts answers that a client does not read
 *   request-input.ts    reads bodies on Node's request objects; parked-input.ts holds streams that are not read for now
 *   whole-messages.ts   gives the RPC library whole messages; message-buffers.ts is memory for those that come in parts
 *   held-bytes.ts       memory for small pieces that wait
 *   envelope-flags.ts   flags in front of messages
 *   inflate.ts          inflates gzip within bounds
 *   call-gate.ts        how many single calls are read at once
 *   turns.ts            work of which little is done at once; json-turns.ts reads long JSON texts in turn
 *   places.ts           how many of something may be open; stream-places.ts for PublishStream
 *   take-until.ts       messages until something else ends them
 *
 * Bytes of requests that are not whole yet: parts of messages, bodies that wait for a seat, messages that wait for room. They are
 * bounded in all and per tenant, as admission.ts bounds whole batches. Answers that a client does not read count here, too.
 *
 *   BODY-1  A body counts the memory that it takes, as bytes come, until its batch is with admission. What a header states counts nothing.
 *   BODY-2  When held bytes and bytes under way exceed a bound, a body that grows is paused: flow control holds its sender back. One
 *       body of each tenant continues: the eldest has the turn, and gives it to the next after `turnMs`. So something becomes whole and
 *       makes room, also when another sender stalls. When there is room again, bodies continue in their order, tenants in turn. While a
 *       whole batch of the tenant waits for room in admission, becoming whole makes no room, so the turn waits too. Bytes that come
 *       after a pause count as under way.
 *   BODY-3  Beyond twice a bound, a body that grows is refused. When it is the bound of the total, and another tenant holds more, the
 *       newest body of that tenant is refused instead. The turn spares a body, unless bodies that the gateway does not read (`waiting`)
 *       hold the whole bound of their tenant.
 *   BODY-4  A body of which no byte comes for `silentMs` is refused, and so is one that brings less than `slowBytes` a second while others wait.
 *       The clock stands while the gateway itself does not read the body.
 *   BODY-5  Messages that come in one piece, as most do, meet none of these rules.
 *   BODY-6  A paused body ends too. When less than `slowBytes` a second has come for `silentMs`, and less than half a window since the
 *       pause, its sender could send more. Then the body is heard: read for `hearingMs`, even without room. It may turn out to be
 *       whole. Otherwise it brings `slowBytes` a second in that time, or is refused. At most `maxHeard` bodies are heard at once. The
 *       silence of BODY-4 adds up over all the times that a body is read.
 *
 * Pure: the caller gives the tick.
 */
import { SluiceError } from '../../lib/errors.js';
import { slowBytes } from '../listener/late-request.js';
import { narrowWindow } from '../listener/stream-windows.js';

/** Whose bytes they are. The budget calls back within `hold`, and later. */
export interface BodyOwner {
  /** To read no more until `resume`. */
  pause(): void;
  resume(): void;
  /** To give all bytes back, and answer with the error. The body is closed already. */
  refuse(error: SluiceError): void;
}

/**
 * The life of a body.
 *
 *   idle      nothing is held, and nothing is due
 *   reading   read as bytes come; its silence counts
 *   paused    it waits for room in the budget
 *   waiting   the gateway does not read it for another reason: no seat, no room for its batch, unread answers
 *   closed    over
 */
export type BodyPhase = 'idle' | 'reading' | 'paused' | 'waiting' | 'closed';

export interface UnfinishedBody {
  readonly phase: BodyPhase;
  /**
   * What the body holds now, in all.
   * @param came bytes that have arrived since the last call
   */
  hold(bytes: number, came: number): void;
  /** More is due, although nothing is held yet (BODY-4). */
  expect(): void;
  /** The gateway reads it no more for now, or again. */
  wait(): void;
  go(): void;
  close(): void;
}

export interface UnfinishedBytes {
  /** A body that holds nothing yet. */
  open(tenant: string, owner: BodyOwner): UnfinishedBody;
  /** Held in all. */
  readonly bytes: number;
  /** Bodies are paused, for want of room. */
  readonly crowded: boolean;
  /** Less than a quarter of the bound is used: memory may be taken ahead. */
  readonly roomy: boolean;
  /** Refused so far. */
  readonly refused: { readonly full: number; readonly silent: number; readonly slow: number };
}

export interface UnfinishedOptions {
  /** Most bytes before bodies are paused; twice that before they are refused. */
  readonly maxBytes: number;
  readonly maxTenantBytes: number;
  /** What bodies that are read may have under way, beyond a narrow window each (stream-windows.ts), bytes. */
  readonly beyondNarrow: () => number;
  /** A whole batch of this tenant waits for room in admission. */
  readonly isFull: (tenant: string) => boolean;
  /** In [0, 1). */
  readonly random: () => number;
  /** Calls back every `tickMs`. Returns what ends that. */
  readonly everyTick: (callback: () => void, ms: number) => () => void;
}

export const silentMs = 15_000;
const turnMs = 2_000;
const hearingMs = 2_000;
/** Of all tenants. Each may bring a window. */
const maxHeard = 32;
const tickMs = 1_000;
const retryAfterMs = 1_000;

interface Tenant {
  readonly name: string;
  held: number;
  /** Bodies that are read or paused, in the order in which they have the turn (BODY-2). */
  readonly line: Set<Body>;
  /** Bodies that hold something, in order of age. */
  readonly bodies: Set<Body>;
  /** What may come of those in `line` that are read, and of those that are paused. */
  due: number;
  /** What bodies in the phase `waiting` hold. */
  waiting: number;
}

interface Budget {
  tenantOf(name: string): Tenant;
  grown(body: Body): void;
  shrunk(): void;
  total: number;
  paused: number;
  due: number;
  /** Bodies that are heard (BODY-6). */
  heard: number;
}

class Body implements UnfinishedBody {
  phase: BodyPhase = 'idle';
  held = 0;
  /** Bytes of this message so far, and for how long it has been read, ms. */
  came = 0;
  readMs = 0;
  silentMs = 0;
  turnMs = 0;
  /** How long it has been read or paused since `markCame` bytes had come, ms (BODY-6). */
  markMs = 0;
  markCame = 0;
  heardMs = 0;
  /** While it is heard: what has to come until the end of that, as `came` counts (BODY-6). */
  heardUntil: number | undefined;
  /** What may be under way: a window while it is read, and what is left of it once it is paused. */
  due = 0;
  tenant: Tenant;
  #expected = false;

  constructor(
    private readonly budget: Budget,
    private readonly name: string,
    readonly owner: BodyOwner,
  ) {
    this.tenant = budget.tenantOf(name);
  }

  hold(bytes: number, came: number): void {
    if (this.phase === 'closed') return;
    if (came > 0) {
      this.came += came;
      this.silentMs = 0;
      if (this.phase === 'paused') this.#expectBytes(Math.max(0, this.due - came));
    }
    const more = this.#count(bytes);
    if (this.phase === 'idle' && (bytes > 0 || this.#expected)) this.enter('reading');
    else if (bytes === 0 && this.phase !== 'waiting' && !this.#expected) this.#rest();
    if (more > 0) this.budget.grown(this);
    else if (more < 0) this.budget.shrunk();
  }

  expect(): void {
    this.#expected = true;
    if (this.phase === 'idle') this.enter('reading');
  }

  wait(): void {
    if (this.phase === 'closed' || this.phase === 'waiting') return;
    const wasPaused = this.phase === 'paused';
    this.enter('waiting');
    if (wasPaused) this.owner.resume();
    this.budget.shrunk();
  }

  go(): void {
    if (this.phase !== 'waiting') return;
    if (this.held === 0 && !this.#expected) {
      this.#rest();
      return;
    }
    this.enter('reading');
    this.budget.grown(this);
  }

  close(): void {
    if (this.phase === 'closed') return;
    this.#count(0);
    this.enter('closed');
    this.budget.shrunk();
  }

  /** Takes its place in the tenant's line, or leaves it. */
  enter(phase: BodyPhase): void {
    const { budget } = this;
    // A tenant without bytes may have been forgotten.
    if (this.held === 0) this.tenant = budget.tenantOf(this.name);
    const { tenant } = this;
    if (this.phase === 'paused') budget.paused--;
    else if (this.phase === 'waiting') tenant.waiting -= this.held;
    if (phase === 'paused') budget.paused++;
    else if (phase === 'waiting') tenant.waiting += this.held;
    if (phase !== 'paused') this.#expectBytes(phase === 'reading' ? narrowWindow : 0);
    this.phase = phase;
    if (phase !== 'reading') this.endHearing();
    if (phase === 'reading' || phase === 'paused') {
      // A set keeps the place of what it has.
      tenant.line.add(this);
    } else {
      tenant.line.delete(this);
      this.turnMs = 0;
      this.silentMs = 0;
      this.mark();
    }
  }

  mark(): void {
    this.markMs = 0;
    this.markCame = this.came;
  }

  endHearing(): void {
    if (this.heardUntil === undefined) return;
    this.heardUntil = undefined;
    this.budget.heard--;
  }

  #expectBytes(due: number): void {
    this.tenant.due += due - this.due;
    this.budget.due += due - this.due;
    this.due = due;
  }

  /** The message is whole: the next one begins from nothing. */
  #rest(): void {
    const wasPaused = this.phase === 'paused';
    this.came = 0;
    this.readMs = 0;
    this.enter('idle');
    if (wasPaused) this.owner.resume();
  }

  #count(bytes: number): number {
    const { budget, held } = this;
    if (held === 0 && bytes > 0) {
      this.tenant = budget.tenantOf(this.name);
      this.tenant.bodies.add(this);
    } else if (bytes === 0) {
      this.tenant.bodies.delete(this);
    }
    const more = bytes - held;
    this.held = bytes;
    this.tenant.held += more;
    if (this.phase === 'waiting') this.tenant.waiting += more;
    budget.total += more;
    return more;
  }
}

const firstOf = (bodies: ReadonlySet<Body>): Body | undefined => {
  for (const body of bodies) return body;
  return undefined;
};

const hasTurn = (body: Body): boolean => firstOf(body.tenant.line) === body;

export function createUnfinished(options: UnfinishedOptions): UnfinishedBytes {
  const { maxBytes, maxTenantBytes, beyondNarrow, isFull, random, everyTick } = options;
  const tenants = new Map<string, Tenant>();
  const refused = { full: 0, silent: 0, slow: 0 };
  let endTicks: (() => void) | undefined;
  let waking = false;

  const refuse = (body: Body, kind: keyof typeof refused, error: SluiceError): void => {
    refused[kind]++;
    body.close();
    body.owner.refuse(error);
  };
  const full = (): SluiceError =>
    new SluiceError(
      'overloaded',
      `The gateway holds ${budget.total} bytes of unfinished requests, and takes no more than ${2 * maxBytes} in all and ${2 * maxTenantBytes} of a tenant.`,
      { retryAfterMs: Math.round(retryAfterMs * (0.5 + random())) },
    );

  /** With what may be under way, and `more` (BODY-2). */
  const crowded = (tenant: Tenant, more = 0): boolean =>
    budget.total + budget.due + beyondNarrow() + more > maxBytes || tenant.held + tenant.due + more > maxTenantBytes;
  const pause = (body: Body): void => {
    if (body.phase !== 'reading' || body.heardUntil !== undefined || !crowded(body.tenant)) return;
    if (hasTurn(body) && !isFull(body.tenant.name)) return;
    body.enter('paused');
    body.owner.pause();
  };
  const resume = (body: Body): void => {
    body.enter('reading');
    body.owner.resume();
  };

  const isSpared = (body: Body): boolean => hasTurn(body) && body.tenant.waiting <= maxTenantBytes;

  /** BODY-3: who gives way for a body that has grown. Undefined: none has to. */
  const victimOf = (body: Body): Body | undefined => {
    if (body.tenant.held > 2 * maxTenantBytes) return isSpared(body) ? undefined : body;
    if (budget.total <= 2 * maxBytes) return undefined;
    let largest = body.tenant;
    for (const tenant of tenants.values()) if (tenant.held > largest.held) largest = tenant;
    if (largest === body.tenant) return isSpared(body) ? undefined : body;
    let newest: Body | undefined;
    for (const other of largest.bodies) if (!hasTurn(other)) newest = other;
    return newest;
  };

  /** BODY-2: the turn first, then what fits, tenants in turn. */
  const wake = (): void => {
    let served = false;
    for (const tenant of tenants.values()) {
      const body = firstOf(tenant.line);
      if (body?.phase === 'paused' && !isFull(tenant.name)) resume(body);
    }
    do {
      served = false;
      for (const tenant of tenants.values()) {
        if (budget.paused === 0) return;
        for (const body of tenant.line) {
          if (body.phase !== 'paused') continue;
          if (crowded(tenant, narrowWindow - body.due)) break;
          resume(body);
          served = true;
          break;
        }
      }
    } while (served);
  };

  const budget: Budget = {
    total: 0,
    paused: 0,
    due: 0,
    heard: 0,
    tenantOf(name) {
      let tenant = tenants.get(name);
      if (tenant === undefined) {
        tenant = { name, held: 0, line: new Set(), bodies: new Set(), due: 0, waiting: 0 };
        tenants.set(name, tenant);
      }
      endTicks ??= everyTick(onTick, tickMs);
      return tenant;
    },
    grown(body) {
      const victim = victimOf(body);
      if (victim !== undefined) refuse(victim, 'full', full());
      pause(body);
    },
    shrunk() {
      // A body that goes on may shrink or grow at once.
      if (budget.paused === 0 || waking) return;
      waking = true;
      wake();
      waking = false;
    },
  };

  /** BODY-6: a paused body grows older. */
  const agePaused = (body: Body): void => {
    if (isFull(body.tenant.name)) return;
    body.markMs += tickMs;
    if (body.markMs < silentMs) return;
    const came = narrowWindow - body.due;
    if (came * 2 >= narrowWindow) return;
    if ((body.came - body.markCame) * 1_000 >= body.markMs * slowBytes) {
      body.mark();
      return;
    }
    if (budget.heard >= maxHeard) return;
    budget.heard++;
    body.heardMs = 0;
    // What came while it was paused comes once more when it is read.
    body.heardUntil = body.came + came + (hearingMs * slowBytes) / 1_000;
    resume(body);
  };

  /** BODY-6: a body that is heard grows older. */
  const judge = (body: Body, until: number): void => {
    body.heardMs += tickMs;
    if (body.heardMs < hearingMs) return;
    if (body.came < until) {
      refuse(body, 'slow', full());
      return;
    }
    body.endHearing();
    body.mark();
    pause(body);
  };

  const age = (body: Body): void => {
    body.readMs += tickMs;
    body.markMs += tickMs;
    body.silentMs += tickMs;
    if (body.silentMs > silentMs) refuse(body, 'silent', bodySilent());
    else if (body.heardUntil !== undefined) judge(body, body.heardUntil);
    else if (body.readMs >= silentMs && budget.paused > 0 && body.came * 1_000 < body.readMs * slowBytes) {
      refuse(body, 'slow', full());
    }
  };

  const passTurn = (tenant: Tenant): void => {
    const body = firstOf(tenant.line);
    if (body === undefined || tenant.line.size < 2 || isFull(tenant.name)) return;
    body.turnMs += tickMs;
    if (body.turnMs < turnMs || budget.paused === 0) return;
    tenant.line.delete(body);
    tenant.line.add(body);
    body.turnMs = 0;
    pause(body);
  };

  function onTick(): void {
    for (const tenant of tenants.values()) {
      for (const body of tenant.line) {
        if (body.phase === 'reading') age(body);
        else agePaused(body);
      }
      passTurn(tenant);
      if (tenant.held === 0 && tenant.line.size === 0 && tenant.bodies.size === 0) tenants.delete(tenant.name);
    }
    budget.shrunk();
    if (tenants.size > 0) return;
    endTicks?.();
    endTicks = undefined;
  }

  return {
    open: (tenant, owner) => new Body(budget, tenant, owner),
    get bytes() {
      return budget.total;
    },
    get crowded() {
      return budget.paused > 0;
    },
    get roomy() {
      return budget.total * 4 < maxBytes;
    },
    refused,
  };
}

/** The end of a request of which no byte has come for too long (BODY-4). */
export const bodySilent = (): SluiceError =>
  new SluiceError('body_silent', `No byte of the request came for ${silentMs / 1_000} s.`, { retryAfterMs: 0 });
