import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { createRandom } from '../../lib/testing/batches.js';
import { storedPayload } from '../testing/payloads.js';
import { sortByTenant, tenantOf } from './sort-by-tenant.js';

const random = createRandom(3);
const message = (tenant: string, batchId: string, events = 2) => storedPayload(random, { tenant, batchId, events });

test('messages are grouped by tenant, tenants in the order of their bytes, and keep their order within', () => {
  const tenants = ['b', 'a', 'b', 'a-2', 'B', 'a', 'b'];
  const messages = tenants.map((tenant, i) => message(tenant, `batch-${i}`, i === 2 ? 500 : 2));
  const sorted = sortByTenant(messages);
  assert.equal(
    sorted.map((one) => messages.indexOf(one)),
    [4, 1, 5, 3, 0, 2, 6],
  );
});

test('the tenant is found whatever the length of the batch', () => {
  for (const events of [1, 3, 500, 20_000]) assert.is(tenantOf(message('acme', 'b', events)), 'acme');
});

test('what does not begin as the gateway writes it comes first, and nothing is lost', () => {
  const odd = [
    new Uint8Array(),
    Uint8Array.of(0x80),
    Uint8Array.of(5, 0x12),
    Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
    // Tenant last: a legal encoding, and not the gateway's.
    Buffer.concat([Uint8Array.of(8), Uint8Array.of(0x1a, 1, 0x62, 0x12, 3, 0x61, 0x62, 0x63)]),
    Buffer.concat([Uint8Array.of(0), toBinary(StoredBatchSchema, create(StoredBatchSchema))]),
  ];
  for (const payload of odd) assert.is(tenantOf(payload), '');
  const known = message('acme', 'b');
  const sorted = sortByTenant([known, ...odd]);
  assert.is(sorted.length, odd.length + 1);
  assert.is(sorted.at(-1), known);
  assert.equal(new Set(sorted), new Set([known, ...odd]));
});

test.run();
