/**
 * Names of fields and enum values, looked up by their bytes: no string is made for a name that is known.
 */
import { KiB } from '../../units.js';

/** The hash of one more byte. */
export const hashOf = (hash: number, byte: number): number => (Math.imul(hash, 31) + byte) | 0;

const hashOfAll = (bytes: Uint8Array, from: number, to: number): number => {
  let hash = 0;
  for (let p = from; p < to; p++) hash = hashOf(hash, bytes[p] as number);
  return hash;
};

/** How many ways to spread the names are tried for each size of the table. */
const maxTries = 200;
const largestTable = 64 * KiB;

interface Entry<T> {
  readonly bytes: Uint8Array;
  readonly value: T;
}

/** A fixed set of names. They are spread until no two share a place, so a look-up compares one name at most. */
export class NameTable<T> {
  private readonly places: readonly (Entry<T> | undefined)[];
  private readonly mask: number;
  private readonly factor: number;

  constructor(entries: Iterable<readonly [string, T]>) {
    const all = [...new Map(entries)].map(([name, value]) => ({ bytes: Buffer.from(name), value }));
    let size = 8;
    while (size < 2 * all.length) size *= 2;
    let found = spread(all, size);
    while (found === undefined) {
      size *= 2;
      if (size > largestTable) throw new Error('the hash does not tell the names of a message apart');
      found = spread(all, size);
    }
    this.places = found.places;
    this.factor = found.factor;
    this.mask = size - 1;
  }

  /** @param hash of bytes from … to-1, by {@link hashOf} from 0 on */
  find(bytes: Uint8Array, from: number, to: number, hash: number): T | undefined {
    const entry = this.places[placeOf(hash, this.factor, this.mask)];
    if (entry === undefined || entry.bytes.length !== to - from) return undefined;
    const name = entry.bytes;
    for (let i = 0; i < name.length; i++) if (name[i] !== bytes[from + i]) return undefined;
    return entry.value;
  }

  /** As `find`, where the hash is not known. */
  findIn(bytes: Uint8Array, from: number, to: number): T | undefined {
    return this.find(bytes, from, to, hashOfAll(bytes, from, to));
  }
}

const placeOf = (hash: number, factor: number, mask: number): number => (Math.imul(hash, factor) >>> 15) & mask;

function spread<T>(
  all: readonly Entry<T>[],
  size: number,
): { readonly places: readonly (Entry<T> | undefined)[]; readonly factor: number } | undefined {
  for (let factor = 1; factor < 2 * maxTries; factor += 2) {
    const mixed = Math.imul(factor, 0x9e3779b1);
    const places = Array<Entry<T> | undefined>(size).fill(undefined);
    const free = all.every((entry) => {
      const place = placeOf(hashOfAll(entry.bytes, 0, entry.bytes.length), mixed, size - 1);
      if (places[place] !== undefined) return false;
      places[place] = entry;
      return true;
    });
    if (free) return { places, factor: mixed };
  }
  return undefined;
}
