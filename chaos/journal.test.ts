import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openJournal, readJournal } from './journal.js';

function withFile(use: (file: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-journal-'));
  try {
    use(join(folder, 'journal'));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('a batch is unknown until it is accepted or refused, and an acceptance stays (JOURNAL-1 to JOURNAL-3)', () => {
  withFile((file) => {
    const journal = openJournal(file);
    journal.sent({ batchId: 'a', first: 0, count: 3, attempt: 1 });
    journal.sent({ batchId: 'b', first: 3, count: 1, attempt: 1 });
    journal.sent({ batchId: 'c', first: 4, count: 2, attempt: 1 });
    journal.sent({ batchId: 'a', first: 0, count: 3, attempt: 2 });
    journal.accepted('a', { shard: 1, sequence: 7n });
    journal.refused('a', 'unauthenticated');
    journal.refused('c', 'unauthenticated');
    journal.close();
    // The process was killed in the middle of a line.
    appendFileSync(file, 's d 6 1');
    const batches = readJournal(file);
    assert.equal(
      [...batches].map(([id, { state, sends, attempt }]) => [id, state, sends, attempt]),
      [
        ['a', 'accepted', 2, 2],
        ['b', 'unknown', 1, 1],
        ['c', 'refused', 1, 1],
      ],
    );
    assert.is(batches.get('a')?.place, 'sequence 7 of shard 1');
  });
});

test('a client that does not count its sends may send as attempt 0 as often as it likes', () => {
  withFile((file) => {
    const journal = openJournal(file);
    for (let i = 0; i < 3; i++) journal.sent({ batchId: 'a', first: 0, count: 3, attempt: 0 });
    journal.sent({ batchId: 'a', first: 0, count: 3, attempt: 2 });
    journal.close();
    assert.equal(
      [...readJournal(file).values()].map(({ sends, attempt }) => [sends, attempt]),
      [[4, 2]],
    );
  });
});

test('a client that breaks its own rules is noticed: other events under an id, an attempt number used twice', () => {
  for (const again of [
    { batchId: 'a', first: 0, count: 2, attempt: 2 },
    { batchId: 'a', first: 0, count: 3, attempt: 1 },
  ]) {
    withFile((file) => {
      const journal = openJournal(file);
      journal.sent({ batchId: 'a', first: 0, count: 3, attempt: 1 });
      journal.sent(again);
      journal.close();
      assert.throws(() => readJournal(file), /batch a was sent/);
    });
  }
});

test.run();
