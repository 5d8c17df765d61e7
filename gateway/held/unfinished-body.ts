/**
 * One body that is not whole, and what its tenant has. The rules, BODY-1 to BODY-6, are in unfinished.ts.
 */
import type { SluiceError } from '../../lib/errors.js';
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

export interface UnfinishedTenant {
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

/** What all bodies share. */
export interface Budget {
  tenantOf(name: string): UnfinishedTenant;
  grown(body: Body): void;
  shrunk(): void;
  total: number;
  paused: number;
  due: number;
  /** Bodies that are heard (BODY-6). */
  heard: number;
}

export class Body implements UnfinishedBody {
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
  tenant: UnfinishedTenant;
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

export const firstOf = (bodies: ReadonlySet<Body>): Body | undefined => {
  for (const body of bodies) return body;
  return undefined;
};

export const hasTurn = (body: Body): boolean => firstOf(body.tenant.line) === body;

export function firstPaused(bodies: ReadonlySet<Body>): Body | undefined {
  for (const body of bodies) if (body.phase === 'paused') return body;
  return undefined;
}
