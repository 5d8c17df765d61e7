import { create, toBinary } from '@bufbuild/protobuf';
import { sizeDelimitedEncode } from '@bufbuild/protobuf/wire';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { createRandom, integer, makeBatch } from '../../lib/testing/batches.js';
import { storedPayload } from '../testing/payloads.js';
import { contentOf } from './block.js';
import { batchIdIn, contractIn, eachFrame, eventIdIn, eventsIn, framed, partsWithout, tenantIn } from './frames.js';

const random = createRandom(21);

/** What the walk sees of a message. */
function seen(data: Uint8Array) {
  const frames: {
    tenant: string;
    batchId: string;
    contract: string;
    attempt: number;
    events: number;
    ids: string[];
  }[] = [];
  const whole = eachFrame(data, (frame) => {
    frames.push({
      tenant: tenantIn(data, frame),
      batchId: batchIdIn(data, frame),
      contract: contractIn(data, frame),
      attempt: frame.attempt,
      events: frame.events,
      ids: (eventsIn(data, frame) ?? []).map((event) => eventIdIn(data, event)),
    });
  });
  return { whole, frames };
}

test('batches read the same whether the gateway or the library wrote them', () => {
  const { events } = makeBatch(random, 5);
  const ids = events.map(({ eventId }) => eventId);
  const facts = { tenant: 'acme', batchId: 'b-1', attempt: 3, contract: 'c0ffee', eventCount: 5 };
  const meta = toBinary(StoredBatchSchema, create(StoredBatchSchema, { ...facts, sentAt: { seconds: 5n, nanos: 6 } }));
  const gateway = framed([meta, toBinary(StoredBatchSchema, create(StoredBatchSchema, { events }))]);
  const library = sizeDelimitedEncode(StoredBatchSchema, create(StoredBatchSchema, { ...facts, events }));
  const { eventCount, ...rest } = facts;
  const expected = { ...rest, events: eventCount, ids };
  assert.equal(seen(Buffer.concat([gateway, library])), { whole: true, frames: [expected, expected] });
  assert.equal(seen(new Uint8Array(0)), { whole: true, frames: [] });
});

test('events that are left out leave all else as it was', () => {
  const data = storedPayload(random, { tenant: 'acme', batchId: 'b', events: 6 });
  const before = seen(data).frames[0];
  eachFrame(data, (frame) => {
    const events = eventsIn(data, frame) ?? [];
    const rest = framed(partsWithout(data, frame, events, (i) => i === 0 || i === 3 || i === 5));
    assert.equal(seen(rest).frames[0], { ...before, ids: before?.ids.filter((_, i) => [1, 2, 4].includes(i)) });
    const none = framed(partsWithout(data, frame, events, () => true));
    assert.equal(seen(none).frames[0]?.ids, []);
    assert.equal(Buffer.from(framed(partsWithout(data, frame, events, () => false))), Buffer.from(data));
  });
});

test('the walk and the cutter agree on every message, broken ones too: how many events, and whether it is whole', () => {
  let broken = 0;
  for (let round = 0; round < 6_000; round++) {
    const batches = Array.from({ length: integer(random, 1, 3) }, (_, i) =>
      storedPayload(random, {
        tenant: 'acme',
        batchId: `b${i}`,
        events: integer(random, 0, 3),
        attempt: integer(random, 0, 2),
      }),
    );
    const data = Buffer.concat(batches);
    for (let n = integer(random, 0, 3); n > 0; n--) data[integer(random, 0, data.length - 1)] = integer(random, 0, 255);
    const cut = data.subarray(0, random() < 0.1 ? integer(random, 0, data.length) : data.length);
    const content = contentOf(cut);
    let events = 0;
    let retried = false;
    const whole = eachFrame(cut, (frame) => {
      events += frame.events;
      retried ||= frame.attempt !== 1;
    });
    assert.is(whole, !content.unframed, `round ${round}`);
    if (!whole) broken++;
    else assert.equal([events, retried], [content.rows, content.retried], `round ${round}`);
  }
  assert.ok(broken > 300, String(broken));
});

test.run();
