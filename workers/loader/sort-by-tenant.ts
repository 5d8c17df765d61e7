/**
 * Orders the messages of a block: by tenant, and within a tenant as they came. The table is sorted by tenant first, and ClickHouse does
 * not permute a block that comes sorted. Permuting 200,000 rows of 58 columns is a sixth of the cost of storing them
 * (docs/performance.md, ClickHouse). Only speed depends on it.
 */

/** The tag of StoredBatch.tenant: field 2, length-delimited. The gateway writes it first. */
const tenantTag = 0x12;

/**
 * The tenant of a message's first batch, in latin1; '' when it does not begin as the gateway writes it. A message holds
 * batches of one tenant.
 */
export function tenantOf(payload: Uint8Array): string {
  let at = 0;
  // The length of the batch: a varint, of five bytes at most.
  while (at < 5 && at < payload.length && payload[at]! >= 0x80) at++;
  at++;
  const length = payload[at + 1];
  if (payload[at] !== tenantTag || length === undefined || length >= 0x80) return '';
  return Buffer.from(payload.buffer, payload.byteOffset + at + 2, Math.min(length, payload.length - at - 2)).toString(
    'latin1',
  );
}

/** The same messages, those of each tenant together, tenants in the order of their bytes. About 0.2 ms for 400 messages. */
export function sortByTenant(messages: readonly Uint8Array[]): readonly Uint8Array[] {
  const groups = new Map<string, Uint8Array[]>();
  for (const message of messages) {
    const tenant = tenantOf(message);
    const group = groups.get(tenant);
    if (group === undefined) groups.set(tenant, [message]);
    else group.push(message);
  }
  if (groups.size <= 1) return messages;
  return [...groups.keys()].sort().flatMap((tenant) => groups.get(tenant) as Uint8Array[]);
}
