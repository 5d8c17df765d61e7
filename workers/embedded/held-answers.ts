/**
 * Answers that clients have not read yet. The engine gives each answer as a whole, so a slow client holds it here. Their total is
 * bounded, and each must be read within a time that grows with its size.
 */
import type { ServerResponse } from 'node:http';
import { KiB } from '../../lib/units.js';
import { EngineError } from './engine-error.js';

export interface HeldAnswers {
  /** @throws EngineError there is no room for another answer now */
  admit(): void;
  /** Counts an answer until it is read or its connection ends, and ends the connection when that takes too long. */
  hold(response: ServerResponse, bytes: number): void;
  /** Held now. */
  readonly bytes: number;
}

/** Time for any answer, ms, and the slowest pace of a large one, bytes a second. */
const minMs = 60_000;
const slowest = 256 * KiB;

/** @param maxBytes a statement is not run while more than this is held */
export function createHeldAnswers(maxBytes: number, min = minMs): HeldAnswers {
  let held = 0;
  return {
    admit() {
      if (held > maxBytes)
        throw new EngineError(
          202,
          `Clients have not read ${held} bytes of answers: read them, or try again. (TOO_MANY_SIMULTANEOUS_QUERIES)`,
        );
    },
    hold(response, bytes) {
      // Its client has gone away meanwhile: 'close' was emitted, and comes no more.
      if (response.destroyed) return;
      held += bytes;
      const overdue = setTimeout(() => response.destroy(), min + (bytes / slowest) * 1_000);
      overdue.unref();
      response.once('close', () => {
        clearTimeout(overdue);
        held -= bytes;
      });
    },
    get bytes() {
      return held;
    },
  };
}
