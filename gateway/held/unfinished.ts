/**
 * What the gateway holds of requests and answers that are not whole, and the bounds of it. The room:
 *
 *   unfinished.ts       this file: bounds the bytes of unfinished requests, in all and per tenant
 *   unfinished-body.ts  one body, and what its tenant has
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
import { retryAfter } from '../../lib/back-off.js';
import { SluiceError } from '../../lib/errors.js';
import { slowBytes } from '../listener/late-request.js';
import { narrowWindow } from '../listener/stream-windows.js';
import {
  Body,
  type BodyOwner,
  type Budget,
  firstOf,
  firstPaused,
  hasTurn,
  type UnfinishedBody,
  type UnfinishedTenant,
} from './unfinished-body.js';

export type { BodyOwner, BodyPhase, UnfinishedBody } from './unfinished-body.js';

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

export const createUnfinished = (options: UnfinishedOptions): UnfinishedBytes => new BodyBudget(options);

class BodyBudget implements Budget, UnfinishedBytes {
  readonly refused = { full: 0, silent: 0, slow: 0 };
  total = 0;
  paused = 0;
  due = 0;
  heard = 0;
  readonly #options: UnfinishedOptions;
  readonly #tenants = new Map<string, UnfinishedTenant>();
  #endTicks: (() => void) | undefined;
  #waking = false;

  constructor(options: UnfinishedOptions) {
    this.#options = options;
  }

  open(tenant: string, owner: BodyOwner): UnfinishedBody {
    return new Body(this, tenant, owner);
  }

  get bytes(): number {
    return this.total;
  }

  get crowded(): boolean {
    return this.paused > 0;
  }

  get roomy(): boolean {
    return this.total * 4 < this.#options.maxBytes;
  }

  tenantOf(name: string): UnfinishedTenant {
    let tenant = this.#tenants.get(name);
    if (tenant === undefined) {
      tenant = { name, held: 0, line: new Set(), bodies: new Set(), due: 0, waiting: 0 };
      this.#tenants.set(name, tenant);
    }
    this.#endTicks ??= this.#options.everyTick(() => this.#tick(), tickMs);
    return tenant;
  }

  grown(body: Body): void {
    const victim = this.#victimOf(body);
    if (victim !== undefined) this.#refuse(victim, 'full', this.#full());
    this.#pause(body);
  }

  shrunk(): void {
    // A body that goes on may shrink or grow at once.
    if (this.paused === 0 || this.#waking) return;
    this.#waking = true;
    this.#wakeTurns();
    while (this.#wakeRound()) {
      // Tenants in turn, until none has room.
    }
    this.#waking = false;
  }

  #refuse(body: Body, kind: keyof UnfinishedBytes['refused'], error: SluiceError): void {
    this.refused[kind]++;
    body.close();
    body.owner.refuse(error);
  }

  #full(): SluiceError {
    const { maxBytes, maxTenantBytes, random } = this.#options;
    return new SluiceError(
      'overloaded',
      `The gateway holds ${this.total} bytes of unfinished requests, and takes no more than ${2 * maxBytes} in all and ${2 * maxTenantBytes} of a tenant.`,
      { retryAfterMs: retryAfter(retryAfterMs, random) },
    );
  }

  /** With what may be under way, and `more` (BODY-2). */
  #isCrowded(tenant: UnfinishedTenant, more = 0): boolean {
    const { maxBytes, maxTenantBytes, beyondNarrow } = this.#options;
    const inAll = this.total + this.due + beyondNarrow() + more;
    return inAll > maxBytes || tenant.held + tenant.due + more > maxTenantBytes;
  }

  #pause(body: Body): void {
    if (body.phase !== 'reading' || body.heardUntil !== undefined || !this.#isCrowded(body.tenant)) return;
    if (hasTurn(body) && !this.#options.isFull(body.tenant.name)) return;
    body.enter('paused');
    body.owner.pause();
  }

  #resume(body: Body): void {
    body.enter('reading');
    body.owner.resume();
  }

  #isSpared(body: Body): boolean {
    return hasTurn(body) && body.tenant.waiting <= this.#options.maxTenantBytes;
  }

  /** BODY-3: who gives way for a body that has grown. Undefined: no body has to. */
  #victimOf(body: Body): Body | undefined {
    const { maxBytes, maxTenantBytes } = this.#options;
    const own = this.#isSpared(body) ? undefined : body;
    if (body.tenant.held > 2 * maxTenantBytes) return own;
    if (this.total <= 2 * maxBytes) return undefined;
    let largest = body.tenant;
    for (const tenant of this.#tenants.values()) if (tenant.held > largest.held) largest = tenant;
    if (largest === body.tenant) return own;
    let newest: Body | undefined;
    for (const other of largest.bodies) if (!hasTurn(other)) newest = other;
    return newest;
  }

  /** BODY-2: the turn goes on first. */
  #wakeTurns(): void {
    for (const tenant of this.#tenants.values()) {
      const body = firstOf(tenant.line);
      if (body?.phase === 'paused' && !this.#options.isFull(tenant.name)) this.#resume(body);
    }
  }

  /** BODY-2: then one body of each tenant that has room. @returns whether there was one */
  #wakeRound(): boolean {
    let served = false;
    for (const tenant of this.#tenants.values()) {
      if (this.paused === 0) return false;
      const body = firstPaused(tenant.line);
      if (body === undefined || this.#isCrowded(tenant, narrowWindow - body.due)) continue;
      this.#resume(body);
      served = true;
    }
    return served;
  }

  #tick(): void {
    for (const tenant of this.#tenants.values()) {
      for (const body of tenant.line) {
        if (body.phase === 'reading') this.#age(body);
        else this.#agePaused(body);
      }
      this.#passTurn(tenant);
      if (tenant.held === 0 && tenant.line.size === 0 && tenant.bodies.size === 0) this.#tenants.delete(tenant.name);
    }
    this.shrunk();
    if (this.#tenants.size > 0) return;
    this.#endTicks?.();
    this.#endTicks = undefined;
  }

  #age(body: Body): void {
    body.readMs += tickMs;
    body.markMs += tickMs;
    body.silentMs += tickMs;
    if (body.silentMs > silentMs) this.#refuse(body, 'silent', bodySilent());
    else if (body.heardUntil !== undefined) this.#judge(body, body.heardUntil);
    else if (body.readMs >= silentMs && this.paused > 0 && body.came * 1_000 < body.readMs * slowBytes) {
      this.#refuse(body, 'slow', this.#full());
    }
  }

  /** BODY-6: a paused body grows older. */
  #agePaused(body: Body): void {
    if (this.#options.isFull(body.tenant.name)) return;
    body.markMs += tickMs;
    if (body.markMs < silentMs) return;
    const came = narrowWindow - body.due;
    if (came * 2 >= narrowWindow) return;
    if ((body.came - body.markCame) * 1_000 >= body.markMs * slowBytes) {
      body.mark();
      return;
    }
    if (this.heard >= maxHeard) return;
    this.heard++;
    body.heardMs = 0;
    // What came while it was paused comes once more when it is read.
    body.heardUntil = body.came + came + (hearingMs * slowBytes) / 1_000;
    this.#resume(body);
  }

  /** BODY-6: a body that is heard grows older. */
  #judge(body: Body, until: number): void {
    body.heardMs += tickMs;
    if (body.heardMs < hearingMs) return;
    if (body.came < until) {
      this.#refuse(body, 'slow', this.#full());
      return;
    }
    body.endHearing();
    body.mark();
    this.#pause(body);
  }

  #passTurn(tenant: UnfinishedTenant): void {
    const body = firstOf(tenant.line);
    if (body === undefined || tenant.line.size < 2 || this.#options.isFull(tenant.name)) return;
    body.turnMs += tickMs;
    if (body.turnMs < turnMs || this.paused === 0) return;
    tenant.line.delete(body);
    tenant.line.add(body);
    body.turnMs = 0;
    this.#pause(body);
  }
}

/** The end of a request of which no byte has come for too long (BODY-4). */
export const bodySilent = (): SluiceError =>
  new SluiceError('body_silent', `No byte of the request came for ${silentMs / 1_000} s.`, { retryAfterMs: 0 });
