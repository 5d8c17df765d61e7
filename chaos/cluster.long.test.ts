/** The whole stack on a cluster of three nats-servers that are killed. Skips without a nats-server that is new enough. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { currentNats } from '../lib/testing/current-nats.js';
import { page, verdict } from './report.js';
import { run } from './run.js';

/** A first build takes a minute on an idle machine. Another run goes on where it stopped. */
const buildWithinMs = 120_000;
const faultsMs = 22_000;

const nats = await currentNats(buildWithinMs);
const { program } = nats;
const name = 'nodes of the log are killed one at a time and all at once, and nothing is lost or doubled';

if (program === undefined) {
  process.stdout.write(`skipped: ${nats.reason}\n`);
  test.skip(name);
} else {
  test(name, async () => {
    const seed = 11;
    const result = await run({
      cluster: { program, syncAlways: false },
      seed,
      rate: 1_500,
      clients: 3,
      durability: 'accepted',
      kills: Number.POSITIVE_INFINITY,
      faults: Number.POSITIVE_INFINITY,
      maxMs: faultsMs,
      minFailpoint: 0,
      only: ['kill:nats', 'kill-all:nats', 'kill:worker', 'kill:gateway'],
      pace: 0.6,
      oneByOne: false,
      control: undefined,
      keep: false,
      say: () => {},
      progress: () => {},
      interrupted: new AbortController().signal,
    });
    assert.is(verdict(result), undefined, page(result, seed));
    assert.ok((result.schedule.killsByRole.get('nats') ?? 0) > 0, page(result, seed));
    assert.ok(result.retried > 0, page(result, seed));
  });
}

test.run();
