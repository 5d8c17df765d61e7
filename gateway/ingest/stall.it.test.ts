/** A gateway that stood still: what it held, and what lay in its sockets, must not come as a first copy long after the retry (INGEST-4, INGEST-5). */
import { fork } from 'node:child_process';
import { Agent, request } from 'node:http';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { addTenant } from '../../lib/tenants.js';
import { freeze } from '../../lib/testing/freeze.js';
import { withNats } from '../../lib/testing/nats.js';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { until } from '../../lib/testing/until.js';
import { systemClock } from '../clock.js';
import { watchLog } from '../log/log-connection.js';
import { createGatewayMetrics } from '../metrics.js';
import { ingestConfig, ingestInput, outcomes, stored } from '../testing/ingest.js';
import { createIngestCore, type IngestResult } from './ingest.js';

const main = programPath('gateway/main.ts');
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

for (const [name, shift] of [
  ['stood still', { now: 11 * 60_000, wall: 11 * 60_000 }],
  ['was suspended', { now: 0, wall: 11 * 60_000 }],
] as const) {
  test(`INGEST-4: a batch that waited while the gateway ${name} for eleven minutes is refused, and not sent`, () =>
    withNats(async (nats) => {
      let moved = { now: 0, wall: 0 };
      const clock = {
        ...systemClock,
        now: () => performance.now() + moved.now,
        wall: () => Date.now() + moved.wall,
      };
      const config = { ...ingestConfig, shards: 1, publishWindow: 1, publishTimeout: 3_600_000 };
      const connecting = connectNats({ servers: nats.url, name: 'test', logger: silentLogger });
      const ingest = createIngestCore({
        config,
        clock,
        metrics: createGatewayMetrics(),
        logger: silentLogger,
        watch: (events) => watchLog({ nats: connecting, config, logger: silentLogger, ...events }),
      });
      await until('ready', () => ingest.ready);
      await freeze(nats.process());
      const sent = ingest.publish(ingestInput('sent'));
      const waiting = outcomes([ingest.publish(ingestInput('waiting-1')), ingest.publish(ingestInput('waiting-2'))]);
      await sleep(50);
      moved = shift;
      nats.process().kill('SIGCONT');
      await sent;
      const { acked, failed } = await waiting;
      assert.equal(acked, []);
      for (const error of failed) {
        assert.equal([error.code, error.outcomeUnknown], ['log_unavailable', false]);
        assert.match(error.message, /held the batch for too long/);
      }
      const later: IngestResult = await ingest.publish(ingestInput('later'));
      assert.is(later.accepted, 10);
      const ids = (await stored(nats)).flatMap(({ batches }) => batches.map(({ batchId }) => batchId));
      assert.equal(ids.sort(), ['later', 'sent']);
      await ingest.drain(1_000);
      await (await connecting).close();
    }));
}

test('INGEST-5: what lay in the sockets of a stopped gateway, or was sent long ago, is written with attempt 0; all else as it says', () =>
  withNats(async (nats) => {
    const { key } = await addTenant(nats.nc, { tenant: 'acme' });
    const flags = ['--nats-url', nats.url, '--port=0', '--metrics-port=0', '--stall-after=3s'];
    const child = fork(main, flags, { execArgv: [...programFlags], silent: true });
    const exited = new Promise((resolve) => child.once('exit', resolve));
    const agents: Agent[] = [];
    try {
      const port = await new Promise<number>((resolve, reject) => {
        child.on('message', (message: { ready?: boolean; port: number }) => {
          if (message.ready === true) resolve(message.port);
        });
        child.once('exit', (code) => reject(new Error(`the gateway exited with ${code}`)));
      });
      const open = (): Agent => {
        const agent = new Agent({ keepAlive: true, maxSockets: 1 });
        agents.push(agent);
        return agent;
      };
      const send = (agent: Agent, batchId: string, more: object = {}): Promise<number | undefined> =>
        new Promise((resolve, reject) => {
          const event = { eventId: batchId, type: 'EVENT_TYPE_CLICK', occurredAt: '2026-11-25T12:00:00Z', userId: 'u' };
          const call = request(
            { port, agent, method: 'POST', path: '/v1/events/batch', headers: { authorization: `Bearer ${key}` } },
            (answer) => {
              answer.resume();
              answer.once('end', () => resolve(answer.statusCode));
            },
          );
          call.once('error', reject);
          call.setHeader('content-type', 'application/json');
          call.end(JSON.stringify({ events: [event], batchId, attempt: 1, ...more }));
        });
      const sentAt = (agoMs: number): object => ({ sentAt: new Date(Date.now() - agoMs).toISOString() });
      const before = open();
      await send(before, 'before', sentAt(0));
      await send(before, 'sent-long-ago', sentAt(660_000));
      await freeze(child);
      // One is on a connection that the gateway knows, one waits with its connection in the kernel.
      const frozen = [send(before, 'known-connection'), send(open(), 'waiting-connection')];
      await sleep(4_500);
      child.kill('SIGCONT');
      assert.equal(await Promise.all(frozen), [202, 202]);
      await send(before, 'known-connection-later');
      await send(before, 'no-id', { batchId: '' });
      await send(before, 'second-try', { attempt: 2 });
      const attempts = new Map(
        (await stored(nats)).flatMap(({ batches }) =>
          batches.map(({ events, attempt }): [string | undefined, number] => [events[0]?.eventId, attempt]),
        ),
      );
      assert.equal(Object.fromEntries([...attempts].sort()), {
        before: 1,
        'known-connection': 0,
        'known-connection-later': 0,
        'no-id': 1,
        'second-try': 2,
        'sent-long-ago': 0,
        'waiting-connection': 0,
      });
    } finally {
      for (const agent of agents) agent.destroy();
      child.kill('SIGKILL');
      await exited;
    }
  }));

test.run();
