import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { replicatesSafely } from './nats-version.js';

test('replicas are trusted from 2.12.7 on', () => {
  for (const version of ['2.12.7', '2.12.10', '2.14.0', 'v2.14.9', '2.15.0-RC.1', '3.0.0']) {
    assert.ok(replicatesSafely(version), version);
  }
  for (const version of ['2.9.10', '2.12.6', '2.11.99', '1.99.99', '', 'nightly', '2.14']) {
    assert.not.ok(replicatesSafely(version), version);
  }
});

test.run();
