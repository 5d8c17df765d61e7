/**
 * The window of the publisher: messages on the wire, by token, and the places of those that were given up (PUB-1, PUB-4).
 */
import type { SluiceError } from '../../lib/errors.js';
import type { Outgoing } from './outgoing.js';

/**
 * How far a message on the wire is. It leaves the window with its outcome.
 *
 *   sent         no answer; whether it is sent a second time is open
 *   once         no answer; no other copy of it is under way
 *   twice        no answer, and none to its copy
 *   copy_lost    no answer; its copy's connection was lost, or the copy's answer says nothing
 *   { refused }  the log refused it, and its copy has no answer yet (HEDGE-3)
 */
export type FlightState = 'sent' | 'once' | 'twice' | 'copy_lost' | { readonly refused: SluiceError };

export interface Flight {
  readonly message: Outgoing;
  readonly payload: Buffer;
  /** Monotonic ms. */
  readonly sentAt: number;
  state: FlightState;
}

export class PublishWindow {
  /** Insertion order is the order of sending, so the oldest comes first. */
  readonly flights = new Map<string, Flight>();
  /** Given up, but still holding its place (PUB-4). */
  readonly lost = new Set<string>();
  readonly #places: number;
  #proving = false;

  constructor(places: number) {
    this.#places = places;
  }

  get used(): number {
    return this.flights.size + this.lost.size;
  }

  get hasRoom(): boolean {
    return this.flights.size + this.lost.size < this.#places;
  }

  /** PUB-4: frees the places of those given up before a PING that the server has answered. */
  prove(ping: () => Promise<void>, onProven: () => void): void {
    if (this.#proving || this.lost.size === 0) return;
    this.#proving = true;
    const before = [...this.lost];
    ping()
      .then(
        () => {
          for (const token of before) this.lost.delete(token);
        },
        () => {
          // Disconnected: that frees the places by itself.
        },
      )
      .finally(() => {
        this.#proving = false;
        onProven();
      });
  }

  /** The connection is gone, and with it all that was on the wire. @returns what has no outcome */
  empty(): Flight[] {
    const flights = [...this.flights.values()];
    this.flights.clear();
    this.lost.clear();
    return flights;
  }
}
