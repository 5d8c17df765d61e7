import { jetstreamManager } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { freeze } from '../../lib/testing/freeze.js';
import { withNats } from '../../lib/testing/nats.js';
import { logLink } from './link.js';

test('a request is given up when its connection is lost, and one that is made meanwhile goes out when it is back', () =>
  withNats(async (nats) => {
    const nc = await connectNats({ servers: nats.url, name: 'test', logger: silentLogger });
    try {
      const ask = logLink(nc);
      assert.is(logLink(nc), ask, 'one for each connection');
      // An hour: what ends here was not ended by the library's own time-out.
      const jsm = await jetstreamManager(nc, { timeout: 3_600_000 });
      const account = (): Promise<unknown> => ask(() => jsm.getAccountInfo());
      await account();
      await freeze(nats.process());
      const lost = account().then(
        () => 'answered',
        (error: unknown) => String(error),
      );
      await new Promise((resolve) => setTimeout(resolve, 50));
      nats.process().kill('SIGKILL');
      assert.is(await lost, 'Error: the connection to NATS was lost');
      let started = false;
      const waiting = ask(() => {
        started = true;
        return jsm.getAccountInfo();
      });
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.not(started);
      await nats.restart();
      await waiting;
      const own = await ask(() => Promise.reject(new Error('its own'))).catch(String);
      assert.is(own, 'Error: its own');
    } finally {
      await nc.close();
    }
  }));

test.run();
