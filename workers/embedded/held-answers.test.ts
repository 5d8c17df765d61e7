import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createHeldAnswers } from './held-answers.js';

class Answer extends EventEmitter {
  destroyed = false;
  destroy(): void {
    this.destroyed = true;
    this.emit('close');
  }
  asResponse(): ServerResponse {
    return this as unknown as ServerResponse;
  }
}

test('answers count until their connection has read them or is gone; above the limit no statement is run', () => {
  const held = createHeldAnswers(100);
  const [one, two] = [new Answer(), new Answer()];
  held.hold(one.asResponse(), 80);
  held.admit();
  held.hold(two.asResponse(), 40);
  assert.is(held.bytes, 120);
  assert.throws(() => held.admit(), /Clients have not read 120 bytes of answers: read them, or try again/);
  one.emit('close');
  held.admit();
  two.emit('close');
  assert.is(held.bytes, 0);
});

test('an answer whose client has gone away is not held', () => {
  const held = createHeldAnswers(100);
  const gone = new Answer();
  gone.destroy();
  held.hold(gone.asResponse(), 1);
  assert.is(held.bytes, 0);
});

test('a client that reads too slowly loses its connection, after a time that goes by the size of the answer', async () => {
  const held = createHeldAnswers(100, 20);
  const [small, large] = [new Answer(), new Answer()];
  held.hold(small.asResponse(), 1);
  held.hold(large.asResponse(), 1024 ** 2);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.ok(small.destroyed);
  assert.not.ok(large.destroyed);
  assert.is(held.bytes, 1024 ** 2);
  large.emit('close');
});

test.run();
