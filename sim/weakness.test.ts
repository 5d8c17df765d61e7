/** The simulator can see: each mutation of the protocol is noticed soon. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { runWorld } from './run.js';
import { type Weakness, type WeaknessName, weaknesses } from './weakness.js';

// Errors are thrown by the thousand here; their stacks would cost more than the rest.
Error.stackTraceLimit = 0;

/** Seeds within which each must be noticed: several times what it takes. */
const maxSeeds = 2_000;

for (const [name, weakness] of Object.entries(weaknesses) as [WeaknessName, Weakness][]) {
  test(`it is noticed when ${weakness.what} (${name})`, async () => {
    for (let seed = 1; seed <= maxSeeds; seed++) {
      const { verdict } = await runWorld(seed, { weakness: name, breakLog: weakness.breakLog });
      if (verdict.faults.length > 0) return;
    }
    assert.unreachable(`${maxSeeds} worlds, and none failed`);
  });
}

test.run();
