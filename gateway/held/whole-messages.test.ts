import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom, integer } from '../../lib/testing/batches.js';
import { splitEnvelopes } from '../api/split-envelopes.js';
import { createMessageBuffers } from './message-buffers.js';
import { type MessageOptions, wholeMessages } from './whole-messages.js';

const options = (more: Partial<MessageOptions> = {}): MessageOptions & { kept: number[] } => {
  const kept: number[] = [];
  return {
    known: 1,
    streams: true,
    max: 100_000,
    buffers: createMessageBuffers(1024 ** 2),
    isRoomy: () => false,
    keep: (bytes) => kept.push(bytes),
    kept,
    ...more,
  };
};

const enveloped = (size: number, fill: number, stated = size): Buffer => {
  const all = Buffer.alloc(5 + size, fill);
  all[0] = 0;
  all.writeUInt32BE(stated, 1);
  return all;
};

async function* inChunks(bytes: Buffer, size: () => number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; ) {
    const next = at + size();
    yield Buffer.from(bytes.subarray(at, next));
    at = next;
  }
}

/** What comes out, copied: buffers are used again. */
async function passed(chunks: AsyncIterable<Uint8Array>, all: MessageOptions): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  for await (const piece of wholeMessages(chunks, all)) pieces.push(Buffer.from(piece));
  return pieces;
}

test('whatever the chunks, the same bytes come out, and no message before it is whole', async () => {
  const random = createRandom(9);
  for (let round = 0; round < 60; round++) {
    const messages = Array.from({ length: 8 }, (_, i) =>
      enveloped(integer(random, 0, round % 2 === 0 ? 30 : 30_000), i),
    );
    const all = Buffer.concat(messages);
    const longest = [1, 7, 100, 20_000][round % 4] as number;
    for (const streams of [true, false]) {
      const one = options({ streams });
      const pieces = await passed(
        inChunks(all, () => integer(random, 1, longest)),
        one,
      );
      assert.ok(Buffer.concat(pieces).equals(all), `round ${round}`);
      // A head alone, or whole messages.
      assert.ok(pieces.length <= 2 * messages.length + 8, `${pieces.length} pieces`);
    }
  }
});

test('a message that ends early is passed on for the library to refuse, and so is a part of a head', async () => {
  for (const bytes of [enveloped(10, 1, 100), enveloped(0, 1, 100), enveloped(3, 1).subarray(0, 3)]) {
    const pieces = await passed(
      inChunks(bytes, () => 2),
      options(),
    );
    assert.ok(Buffer.concat(pieces).equals(bytes));
  }
});

test('a message over the limit is passed on at once, by its head', async () => {
  const seen: number[] = [];
  async function* endless(): AsyncGenerator<Buffer> {
    yield enveloped(10, 1, 200_000).subarray(0, 3);
    yield enveloped(10, 1, 200_000).subarray(3);
    throw new Error('asked for more');
  }
  try {
    for await (const piece of wholeMessages(endless(), options())) seen.push(piece.length);
  } catch (error) {
    assert.is((error as Error).message, 'asked for more');
  }
  assert.is(
    seen.reduce((a, b) => a + b, 0),
    15,
  );
});

test('what is kept is the memory that is taken, and a stated size takes none', async () => {
  const one = options();
  const bytes = enveloped(50, 1, 90_000);
  await passed(
    inChunks(bytes, () => 10),
    one,
  );
  assert.ok(Math.max(...one.kept) <= 200, `${Math.max(...one.kept)}`);
});

test('a body without envelopes comes in one piece, however small its chunks are', async () => {
  const one = options({ known: undefined, max: 200_000 });
  const body = Buffer.alloc(150_000, 7);
  const pieces = await passed(
    inChunks(body, () => 1),
    one,
  );
  assert.is(pieces.length, 1);
  assert.ok(pieces[0]?.equals(body));
  assert.ok((one.kept.at(-1) ?? 0) < 200_001);
});

test('a body without envelopes that is too long is passed on as it comes', async () => {
  const body = Buffer.alloc(150_000, 7);
  const pieces = await passed(
    inChunks(body, () => 30_000),
    options({ known: undefined }),
  );
  assert.equal(
    pieces.map(({ length }) => length),
    [90_000, 30_000, 30_000],
  );
});

test('a message that its reader takes over keeps its bytes until they are given back', async () => {
  const one = options();
  const all = Buffer.concat([1, 2, 3].map((fill) => enveloped(50_000, fill)));
  const taken: { bytes: Uint8Array; release: (() => void) | undefined }[] = [];
  for await (const { bytes, release } of splitEnvelopes(
    wholeMessages(
      inChunks(all, () => 20_000),
      one,
    ),
    100_000,
  ))
    taken.push({ bytes, release });
  assert.equal(
    taken.map(({ bytes }) => bytes[49_999]),
    [1, 2, 3],
  );
  const memory = taken[0]?.bytes.buffer;
  taken[0]?.release?.();
  assert.ok(one.buffers.take(50_000).buffer === memory, 'and is used again then');
});

test.run();
