/** The client for Node against limits of a real gateway: it waits, and loses nothing. */
import { spawn } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { testEnvironment } from '../lib/config/index.js';
import { addTenant } from '../lib/tenants.js';
import { withNats } from '../lib/testing/nats.js';
import { root } from '../lib/testing/root.js';
import { EventType, SluiceClient, type SluiceClientError } from '../sdk-gen/typescript/src/index.js';
import { nodeArguments } from './roles.js';

/** Starts `sluice gateway` as a separate process, and makes a tenant with a key. */
async function withGateway(
  flags: readonly string[],
  use: (gateway: { readonly baseUrl: string; readonly key: string }) => Promise<void>,
): Promise<void> {
  await withNats(async (nats) => {
    const { key } = await addTenant(nats.nc, { tenant: 'acme' });
    const own = ['--port', '0', '--metrics-port', '0', '--nats-url', nats.url, '--log-level', 'error'];
    const child = spawn(process.execPath, nodeArguments('gateway', [...own, ...flags]), {
      cwd: root,
      env: testEnvironment(),
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    try {
      const port = await new Promise<number>((resolve, reject) => {
        child.once('message', (message: { port: number }) => resolve(message.port));
        child.once('exit', () => reject(new Error('the gateway ended')));
      });
      await use({ baseUrl: `http://127.0.0.1:${port}`, key });
    } finally {
      child.kill('SIGKILL');
    }
  });
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const click = { type: EventType.CLICK, touch: { channel: 'email' } } as const;

test('a stream too many is tried again as seldom as the gateway asks, and delivers when there is a place', async () => {
  await withGateway(['--max-streams-per-key', '1'], async (gateway) => {
    const holder = new SluiceClient(gateway);
    holder.track(click);
    await holder.flush();
    const errors: SluiceClientError[] = [];
    const client = new SluiceClient({ ...gateway, onError: (error) => errors.push(error) });
    try {
      client.track(click);
      await pause(5_000);
      assert.ok(errors.length >= 1 && errors.length <= 3, `${errors.length} refusals in 5 s`);
      for (const { code, reason, retryAfterMs } of errors) {
        assert.equal([code, reason], ['resource_exhausted', 'too_many_calls']);
        assert.ok(retryAfterMs !== undefined && retryAfterMs >= 2_000 && retryAfterMs <= 6_000);
      }
      await holder.close();
      const report = await client.close({ timeoutMs: 15_000 });
      assert.equal([report.delivered, report.undelivered.events], [1, 0]);
    } finally {
      await holder.close({ timeoutMs: 0 });
      await client.close({ timeoutMs: 0 });
    }
  });
});

test('150 batches without a valid event end a stream, and cost no other batch: each is reported once', async () => {
  await withGateway([], async (gateway) => {
    const errors: SluiceClientError[] = [];
    let told = 0;
    const client = new SluiceClient({
      ...gateway,
      onError: (error) => errors.push(error),
      onRejected: ({ events }) => {
        told += events;
      },
    });
    try {
      // A batch for each event, many of them in flight.
      const send = (event: Parameters<SluiceClient['track']>[0]): void => {
        client.track(event);
        void client.flush();
      };
      for (let i = 0; i < 20; i++) send(click);
      for (let i = 0; i < 150; i++) send({ ...click, eventId: `${i}-${'x'.repeat(500)}` });
      for (let i = 0; i < 20; i++) send(click);
      const report = await client.close({ timeoutMs: 20_000 });
      assert.equal(report, { delivered: 40, rejected: 150, undelivered: { events: 0, batches: 0, accepted: 0 } });
      assert.is(told, 150);
      assert.equal(
        errors.map(({ code, reason }) => [code, reason]),
        [['resource_exhausted', 'too_many_refusals']],
      );
      assert.is(client.stats().connections, 2);
    } finally {
      await client.close({ timeoutMs: 0 });
    }
  });
});

test.run();
