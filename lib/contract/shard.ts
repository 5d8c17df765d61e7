/**
 * Which shard a batch belongs to: a pure function of its identity (tenant, batch_id), so that a retry, through
 * whichever gateway, lands on the same shard. FNV-1a, 32 bit, over the characters' codes (both ids are ASCII).
 */
export function shardOf(tenant: string, batchId: string, shards: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < tenant.length; i++) {
    hash = Math.imul(hash ^ tenant.charCodeAt(i), 0x01000193);
  }
  // A byte that neither id can hold, so that ("ab", "c") and ("a", "bc") differ.
  hash = Math.imul(hash ^ 0, 0x01000193);
  for (let i = 0; i < batchId.length; i++) {
    hash = Math.imul(hash ^ batchId.charCodeAt(i), 0x01000193);
  }
  // FNV's low bits are weak for ids that differ only in their last characters: mix before the modulo.
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x7feb352d);
  hash ^= hash >>> 15;
  hash = Math.imul(hash, 0x846ca68b);
  hash ^= hash >>> 16;
  return (hash >>> 0) % shards;
}
