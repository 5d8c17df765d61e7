/** Whose unread calls are the next to go (UNREAD-2 in unread-calls.ts). */

export interface UnreadCall {
  owner: unknown;
  readonly connection: unknown;
  readonly bytes: number;
}

interface Share<C> {
  bytes: number;
  readonly calls: Set<C>;
}

interface Owner<C> {
  bytes: number;
  readonly connections: Map<unknown, Share<C>>;
}

export class UnreadCalls<C extends UnreadCall> {
  readonly #owners = new Map<unknown, Owner<C>>();
  /** Of all. */
  bytes = 0;

  add(call: C): void {
    let owner = this.#owners.get(call.owner);
    if (owner === undefined) {
      owner = { bytes: 0, connections: new Map() };
      this.#owners.set(call.owner, owner);
    }
    let share = owner.connections.get(call.connection);
    if (share === undefined) {
      share = { bytes: 0, calls: new Set() };
      owner.connections.set(call.connection, share);
    }
    share.calls.add(call);
    share.bytes += call.bytes;
    owner.bytes += call.bytes;
    this.bytes += call.bytes;
  }

  /** To be called once for each call that was added. */
  delete(call: C): void {
    const owner = this.#owners.get(call.owner);
    const share = owner?.connections.get(call.connection);
    if (owner === undefined || share?.calls.delete(call) !== true) return;
    share.bytes -= call.bytes;
    owner.bytes -= call.bytes;
    this.bytes -= call.bytes;
    if (share.calls.size === 0) owner.connections.delete(call.connection);
    if (owner.connections.size === 0) this.#owners.delete(call.owner);
  }

  /** The call is another owner's. It counts as that one's youngest. */
  move(call: C, owner: unknown): void {
    this.delete(call);
    call.owner = owner;
    this.add(call);
  }

  /** The eldest call of the connection that has most, of the owner that has most. Undefined: there is none. */
  next(): C | undefined {
    const owner = largest(this.#owners.values());
    const share = owner && largest(owner.connections.values());
    return share?.calls.values().next().value;
  }
}

function largest<T extends { readonly bytes: number }>(all: Iterable<T>): T | undefined {
  let found: T | undefined;
  for (const one of all) if (found === undefined || one.bytes > found.bytes) found = one;
  return found;
}
