/**
 * Memory that messages are read into. A slab takes what a socket delivers, and messages are windows on it; when none of
 * them is held any more the slab is filled again. So a worker that loads 150 MB/s allocates nothing for it: node's buffer for
 * every read and the library's for every message used to cost it more in copying, page faults and collections than all
 * its other work (docs/performance.md, Worker).
 */

/** Bytes of a slab. A message that is cut by its end is moved to the next one: about 6 % of the bytes at 128 KiB each. */
const slabBytes = 1024 ** 2;
const firstBytes = 64 * 1024;

export interface Slab {
  readonly bytes: Buffer;
  /** Messages in it that somebody holds. */
  held: number;
  /** A socket may still write to it. */
  filling: boolean;
  /** Somebody may still read from it after its messages were let go: it is left to the collector. */
  spoiled: boolean;
}

export interface SlabPool {
  /** One that holds so many bytes at least. */
  take(bytes: number): Slab;
  /** A small one, to begin with: most shards of an installation may be quiet. */
  first(): Slab;
  /** Another message in the slab is held. */
  hold(slab: Slab): void;
  /** One of them is not held any more. `reusable`: and nothing can read its bytes from now on. */
  letGo(slab: Slab, reusable: boolean): void;
  /** Nothing writes to it any more. */
  filled(slab: Slab): void;
  /** Slabs that wait for use. */
  readonly free: number;
}

const made = (bytes: Buffer): Slab => ({ bytes, held: 0, filling: true, spoiled: false });

/** @param most bytes that are kept for later use */
export function slabPool(most: number): SlabPool {
  const free: Buffer[] = [];
  const done = (slab: Slab): void => {
    if (slab.filling || slab.held > 0 || slab.spoiled) return;
    // Never twice: a slab object is over with its use, its buffer goes on in another one.
    slab.spoiled = true;
    if (slab.bytes.length === slabBytes && (free.length + 1) * slabBytes <= most) free.push(slab.bytes);
  };
  return {
    take: (bytes) =>
      made((bytes <= slabBytes ? free.pop() : undefined) ?? Buffer.allocUnsafeSlow(Math.max(slabBytes, bytes))),
    first: () => made(Buffer.allocUnsafeSlow(firstBytes)),
    hold(slab) {
      slab.held++;
    },
    letGo(slab, reusable) {
      slab.held--;
      if (!reusable) slab.spoiled = true;
      done(slab);
    },
    filled(slab) {
      slab.filling = false;
      done(slab);
    },
    get free() {
      return free.length;
    },
  };
}
