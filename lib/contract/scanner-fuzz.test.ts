/**
 * The scanner against the oracle on mutated batches (lib/testing/scanner-fuzz.ts; scanner-fuzz.long.test.ts has more of them), and each rule
 * broken alone, which is refused with its field.
 */
import { toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { makeEvent } from '../testing/batches.js';
import { acceptedCorpus } from '../testing/corpus.js';
import { judgeEvent } from '../testing/event-oracle.js';
import { makeRichEvent } from '../testing/rich-events.js';
import { ruleBreakers } from '../testing/rule-breakers.js';
import { checkBatch, fuzzScanner, fuzzSeed, randomOf, scanLimits } from '../testing/scanner-fuzz.js';
import { encodeTree, type WireField } from '../testing/wire-tree.js';
import { scanBatch } from './index.js';

test('scanner and oracle agree on every event of 20,000 mutated batches', () => fuzzScanner(0, 20_000));

test('each rule broken alone is refused with its field and code', () => {
  const random = randomOf(-1);
  const breakers = ruleBreakers();
  assert.ok(breakers.length > 500, `${breakers.length} ways to break a rule`);
  for (let round = 0; round < 4; round++) {
    for (const breaker of breakers) {
      const whole = toBinary(EventSchema, round % 2 === 0 ? makeEvent(random, round) : makeRichEvent(random));
      const broken = breaker.apply(whole);
      const event = (value: Uint8Array): WireField => ({ number: 1, wireType: 2, value });
      const batch = encodeTree([event(whole), event(broken), event(whole)]);
      const result = scanBatch(batch, scanLimits);
      const [rejection] = result.rejections;
      assert.is(result.rejected, 1, breaker.name);
      assert.is(rejection?.index, 1, breaker.name);
      assert.is(rejection?.field, breaker.field, `${breaker.name}: ${rejection?.message}`);
      assert.is(rejection?.code, breaker.code, `${breaker.name}: ${rejection?.message}`);
      assert.ok((rejection?.message.length ?? 0) < 400, breaker.name);
      assert.ok(Buffer.from(result.bytes).equals(encodeTree([event(whole), event(whole)])), breaker.name);
      assert.ok(judgeEvent(broken).fault !== undefined, `the oracle misses: ${breaker.name}`);
    }
  }
});

test('valid events of every shape, and odd but legal encodings, are all accepted', () => {
  const random = randomOf(-2);
  for (let i = 0; i < 1500; i++) {
    const event = toBinary(EventSchema, makeRichEvent(random));
    const result = scanBatch(encodeTree([{ number: 1, wireType: 2, value: event }]), scanLimits);
    assert.is(result.rejected, 0, `${i}: ${JSON.stringify(result.rejections)}`);
    assert.is(result.unknownFields, false);
  }
  for (const batch of acceptedCorpus(fuzzSeed, 200)) {
    const tally = { accepted: 0, refused: 0, malformed: 0 };
    checkBatch(batch, tally);
    assert.is(tally.refused, 0);
  }
});

test.run();
