/** What request number `index` of a seed is: the same each time, whatever came before it. */
import { createRandom, integer, pick, type Random } from '../../lib/testing/batches.js';
import { type Case, cases, type Request } from './corpus.js';
import { mutatedRequest } from './mutate.js';

/** One request in so many is valid, and must be accepted and in the log once. */
export const validEvery = 50;

/**
 * How it is sent.
 *
 *   frames   HTTP/2 frame by frame, many on one connection
 *   node     by node:http2, many on one connection
 *   http1    as text on a connection of its own, sometimes several at once
 *   bytes    as HTTP/2, whose bytes are mutated too, on a connection of its own
 */
export type Transport = 'frames' | 'node' | 'http1' | 'bytes';

export interface Plan {
  readonly index: number;
  readonly transport: Transport;
  /** The library serves all of it. */
  readonly library: boolean;
  /** Which of the keys. */
  readonly key: number;
  readonly name: string;
  readonly request: Request;
  /** Of a valid one: to be accepted with so many events, under this id. */
  readonly valid: { readonly batchId: string; readonly events: number } | undefined;
  /** For what the sender decides: pieces, pauses, resets. */
  readonly random: Random;
}

export const batchIdOf = (seed: number, index: number): string => `fuzz-${seed}-${index}`;

function transportOf(random: Random): Transport {
  const dice = random();
  return dice < 0.7 ? 'frames' : dice < 0.82 ? 'node' : dice < 0.93 ? 'http1' : 'bytes';
}

export function planOf(seed: number, index: number, keys: number): Plan {
  const random = createRandom(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b));
  const library = random() < 0.25;
  const key = integer(random, 0, keys - 1);
  const isValid = index % validEvery === validEvery - 1;
  const drawn = transportOf(random);
  const transport = isValid && drawn === 'bytes' ? 'frames' : drawn;
  const fitting = (one: Case): boolean =>
    (transport !== 'http1' || one.http1) && (!isValid || one.events !== undefined);
  const chosen = pick(random, cases.filter(fitting));
  const batchId = batchIdOf(seed, index);
  const common = { index, transport, library, key, random };
  if (isValid) {
    const valid = { batchId, events: chosen.events as number };
    return { ...common, name: chosen.name, request: chosen.make(random, batchId), valid };
  }
  const other = pick(random, cases);
  const request = mutatedRequest(random, chosen.make(random, `mutated-${index}`), other.make(random, `other-${index}`));
  return { ...common, name: chosen.name, request, valid: undefined };
}
