/**
 * Bounds what may be open at the same time, in all and for each owner (a key, a tenant, a connection). A place is taken before anything
 * is held for its owner, and given back at the end, however it ends.
 */
import type { SluiceError } from '../../lib/errors.js';

export interface Places<Owner> {
  /** @returns gives the place back; a second call does nothing. @throws SluiceError what `refuse` made */
  take(owner: Owner): () => void;
  /** Why the owner would get none; undefined: it would get one. */
  refusal(owner: Owner): SluiceError | undefined;
  /** Taken now, by all owners. */
  readonly taken: number;
}

export interface PlacesOptions {
  /** In all. */
  readonly max: number;
  readonly maxOfOne: number;
  /** @param full the limit that is reached: of this owner, or of all together */
  readonly refuse: (full: 'owner' | 'all') => SluiceError;
}

export function createPlaces<Owner>({ max, maxOfOne, refuse }: PlacesOptions): Places<Owner> {
  const owned = new Map<Owner, number>();
  let taken = 0;

  const giveBack = (owner: Owner): void => {
    taken--;
    const left = (owned.get(owner) ?? 1) - 1;
    if (left === 0) owned.delete(owner);
    else owned.set(owner, left);
  };

  const refusal = (owner: Owner): SluiceError | undefined => {
    if ((owned.get(owner) ?? 0) >= maxOfOne) return refuse('owner');
    return taken >= max ? refuse('all') : undefined;
  };

  return {
    refusal,
    take(owner) {
      const refused = refusal(owner);
      if (refused !== undefined) throw refused;
      taken++;
      owned.set(owner, (owned.get(owner) ?? 0) + 1);
      let isTaken = true;
      return () => {
        if (isTaken) giveBack(owner);
        isTaken = false;
      };
    },
    get taken() {
      return taken;
    },
  };
}
