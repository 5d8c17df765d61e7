/** What each way of loading stored is compared in the real engine: on a small block here, in full by `bench -- formats`. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { compareFormats } from './formats.js';

test('every way into the table stores the same rows, all columns', async () => {
  // Throws when one differs.
  const results = await compareFormats({ rows: 2_000, rounds: 1, progress: () => undefined });
  assert.equal(
    results.map(({ name }) => name),
    ['Protobuf, passed through', 'JSONEachRow', 'RowBinary', 'Native'],
  );
  for (const { rows_per_cpu_s, bytes_per_row } of results) {
    assert.ok(rows_per_cpu_s > 0);
    assert.ok(bytes_per_row > 100);
  }
});

test.run();
