/**
 * The names in an object that have been read so far, compared by their bytes: no string is made for one, and no set for an object.
 *
 * Objects inside others share one list: the names of an object are those since its mark. Each is compared with those before it, so an
 * object may have 100 at most. A body of 4 MiB has room for 600,000 names; as strings in sets they held up the gateway for 0.7 s.
 */

/** Names that an object may have which no contract bounds. */
export const maxNames = 100;

/** Odd, and not known outside: names of one hash are compared byte by byte, and with 31 anybody can make such names. */
const factor = Math.floor(Math.random() * 2 ** 31) | 1;

export class SeenNames {
  /** Names in the list. Set it to a mark to forget those after it. */
  size = 0;
  private readonly hashes: number[] = [];
  private readonly sources: Uint8Array[] = [];
  private readonly starts: number[] = [];
  private readonly ends: number[] = [];

  /**
   * Adds the name in bytes from … to-1, which must not change, unless it is there since `mark`.
   * @param seed names with another one are others
   * @returns whether it was new
   */
  add(source: Uint8Array, from: number, to: number, mark: number, seed = 0): boolean {
    const hash = hashOf(source, from, to, seed);
    const { size } = this;
    for (let i = mark; i < size; i++) {
      if (this.hashes[i] === hash && this.isSame(i, source, from, to)) return false;
    }
    this.hashes[size] = hash;
    this.sources[size] = source;
    this.starts[size] = from;
    this.ends[size] = to;
    this.size = size + 1;
    return true;
  }

  private isSame(i: number, source: Uint8Array, from: number, to: number): boolean {
    const other = this.sources[i] as Uint8Array;
    const start = this.starts[i] as number;
    if ((this.ends[i] as number) - start !== to - from) return false;
    for (let p = from; p < to; p++) if (source[p] !== other[start + p - from]) return false;
    return true;
  }
}

function hashOf(source: Uint8Array, from: number, to: number, seed: number): number {
  let hash = seed;
  for (let p = from; p < to; p++) hash = (Math.imul(hash, factor) + (source[p] as number)) | 0;
  return hash;
}
