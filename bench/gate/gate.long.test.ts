/**
 * The performance gate. It runs alone (cli/test.ts), and compares ratios inside this run, never times.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { compare, describe } from './bounds.js';
import { recorded, runGate } from './index.js';

test('neither the scanner nor the gateway has become clearly dearer than recorded in bench/gate.json', async () => {
  // A noisy moment gets a second look; what has become dearer fails it too.
  let { ratios, rounds } = await runGate(4, () => undefined);
  let findings = compare(recorded(), ratios);
  if (findings.some(({ passed }) => !passed)) {
    ({ ratios, rounds } = await runGate(6, () => undefined));
    findings = compare(recorded(), ratios);
  }
  const seen = findings.map(describe).join('\n');
  const advice =
    'A change of performance that is meant is recorded with `npm run bench -- gate --record`; \n' +
    'else `npm run bench -- gate` measures again, and `npm run bench -- gateway --profile FOLDER` shows where the time goes.';
  assert.ok(
    findings.every((finding) => finding.passed),
    `${seen}\nrounds: ${JSON.stringify(rounds)}\n${advice}`,
  );
});

test.run();
