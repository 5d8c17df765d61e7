import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { pageTitles } from './clients/page.js';
import { placeholders, readSnippets } from './snippets.js';

test('every program of docs/clients.md is one that npm run interop runs', () => {
  const titles = [...readSnippets().keys()].filter((title) => title !== 'Readers of the log');
  assert.equal(titles, pageTitles);
});

test('every program of docs/clients.md leaves attempt out, names its batch and keeps to the placeholders', () => {
  for (const title of pageTitles) {
    const text = (readSnippets().get(title) ?? []).map((step) => step.text).join('\n');
    for (const placeholder of [placeholders.eventId, placeholders.batchId])
      assert.ok(text.includes(placeholder), `${title}: ${placeholder}`);
    assert.not.match(text, /attempt"?\s*[:=(]|setAttempt|Attempt:/, title);
  }
});

test('blocks that name a file are files, blocks of sh are run, the rest is for people', () => {
  const page =
    '## One\n```text\nno\n```\n```go main.go\npackage main\n```\n```sh\ngo run .\n```\n## Two\n```\nno\n```\n';
  assert.equal(
    [...readSnippets(page)],
    [
      [
        'One',
        [
          { kind: 'file', name: 'main.go', text: 'package main\n' },
          { kind: 'sh', text: 'go run .\n' },
        ],
      ],
    ],
  );
});

test.run();
