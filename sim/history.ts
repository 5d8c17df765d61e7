/** What the clients heard, written down as it happened. Survives every process. */
import type { Durability } from '../sdk-gen/typescript/src/delivery.js';

export interface History {
  sent(eventIds: readonly string[]): void;
  told(durability: Durability, eventIds: readonly string[]): void;
  /** Refused by the contract: never to be seen again. */
  refuse(eventIds: readonly string[]): void;
  /** Something that must not happen, in words. */
  odd(what: string): void;
  readonly all: ReadonlySet<string>;
  /** The log has them; ClickHouse has them. */
  readonly accepted: ReadonlySet<string>;
  readonly committed: ReadonlySet<string>;
  readonly invalid: ReadonlySet<string>;
  readonly oddities: readonly string[];
}

export function createHistory(): History {
  const all = new Set<string>();
  const promised = { accepted: new Set<string>(), committed: new Set<string>() };
  const invalid = new Set<string>();
  const oddities: string[] = [];
  return {
    sent(ids) {
      for (const id of ids) all.add(id);
    },
    told(durability, ids) {
      for (const id of ids) promised[durability].add(id);
    },
    refuse(ids) {
      for (const id of ids) invalid.add(id);
    },
    odd: (what) => void oddities.push(what),
    all,
    ...promised,
    invalid,
    oddities,
  };
}
