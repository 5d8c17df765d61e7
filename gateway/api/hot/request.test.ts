import { fromBinary } from '@bufbuild/protobuf';
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom } from '../../../lib/testing/batches.js';
import { fromView, publishStreamRequestView } from '../view.js';
import { readPlain, readRequest } from './request.js';

const time = new BinaryWriter().tag(1, 0).int64(1_767_225_600).tag(2, 0).int32(999_999_999).finish();
const plain = Buffer.from(
  new BinaryWriter()
    .tag(1, 2)
    .bytes(Uint8Array.of(0x0a, 0x02, 0x0a, 0x00))
    .tag(2, 2)
    .string('an-id:7')
    .tag(3, 0)
    .uint32(200)
    .tag(4, 2)
    .bytes(time)
    .finish(),
);

const fields = ({ batch, batchId, attempt, sentAt, durability }: ReturnType<typeof readRequest>) => ({
  batch: Buffer.from(batch).toString('hex'),
  batchId,
  attempt,
  sentAt: sentAt === undefined ? undefined : { seconds: sentAt.seconds, nanos: sentAt.nanos },
  durability,
});
const byLibrary = (bytes: Buffer) =>
  fields(fromView(fromBinary(publishStreamRequestView, bytes, { readUnknownFields: false })));

test('the plain form is read without the library, in any order of its fields', () => {
  const read = readPlain(plain, undefined);
  assert.ok(read);
  if (read !== undefined) assert.equal(fields(read), byLibrary(plain));
  assert.is(read?.attempt, 200);
  assert.is(read?.sentAt?.nanos, 999_999_999);
  const reversed = new BinaryWriter().tag(3, 0).uint32(1).tag(2, 2).string('x').tag(1, 2).bytes(plain).finish();
  assert.is(readPlain(Buffer.from(reversed), undefined)?.batchId, 'x');
  assert.is(readPlain(Buffer.alloc(0), undefined)?.batchId, '');
});

test('whatever is read as plain reads the same for the library', () => {
  const random = createRandom(3);
  let taken = 0;
  for (let i = 0; i < 200_000; i++) {
    const bytes = Buffer.from(plain);
    for (let flips = 1 + Math.floor(random() * 2); flips > 0; flips--) {
      bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
    }
    const cut = random() < 0.2 ? bytes.subarray(0, Math.floor(random() * bytes.length)) : bytes;
    const read = readPlain(cut, undefined);
    if (read === undefined) continue;
    taken++;
    assert.equal(fields(read), byLibrary(cut), cut.toString('hex'));
  }
  assert.ok(taken > 20_000, `${taken}`);
});

test('memory is given back when the bytes are no message', () => {
  let released = 0;
  const bytes = Buffer.from([0x0a, 0x20, 1]);
  assert.throws(() => readRequest(publishStreamRequestView, bytes, () => released++), /parse binary/);
  assert.is(released, 1);
});

test.run();
