/** Messages that wait for the window, first in, first out. */
import type { Outgoing } from './outgoing.js';

interface Queued {
  readonly message: Outgoing;
  /** Monotonic ms. */
  readonly queuedAt: number;
}

/** The array drops its empty places when there are so many. */
const maxEmpty = 1_024;

export class PublishQueue {
  #items: (Queued | undefined)[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  /** Since when the first waits, monotonic ms; undefined: none waits. */
  get oldestAt(): number | undefined {
    return this.#items[this.#head]?.queuedAt;
  }

  push(message: Outgoing, queuedAt: number): void {
    this.#items.push({ message, queuedAt });
  }

  shift(): Outgoing | undefined {
    const first = this.#items[this.#head];
    if (first === undefined) return undefined;
    this.#items[this.#head++] = undefined;
    if (this.#head === this.#items.length || this.#head > maxEmpty) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return first.message;
  }

  /** @returns what waited */
  empty(): Outgoing[] {
    const waiting = this.#items.slice(this.#head) as Queued[];
    this.#items = [];
    this.#head = 0;
    return waiting.map(({ message }) => message);
  }
}
