/** The tool that customers try first. Skipped, with a word, where there is none. */
import { execFile, execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { stored } from '../testing/ingest.js';
import { withGateway } from '../testing/running-gateway.js';

const run = promisify(execFile);

function findGrpcurl(): string | undefined {
  for (const candidate of ['grpcurl', join(homedir(), 'go', 'bin', 'grpcurl')]) {
    try {
      if (candidate.includes('/') && !existsSync(candidate)) continue;
      execFileSync(candidate, ['-version'], { stdio: 'ignore' });
      return candidate;
    } catch {}
  }
  return undefined;
}

const grpcurl = findGrpcurl();

if (grpcurl === undefined) {
  test('grpcurl is not on this machine: nothing to check', () => {
    process.stderr.write('skipped: no grpcurl on PATH or in ~/go/bin\n');
  });
} else {
  const event = (id: string) => ({ eventId: id, type: 'EVENT_TYPE_CLICK', occurredAt: '2026-01-02T03:04:05Z' });

  test('grpcurl lists, describes and calls everything without a proto file', async () => {
    await withGateway({ reflection: 'open' }, async ({ port, key, nats }) => {
      const address = `127.0.0.1:${port}`;
      const call = async (...words: string[]) => (await run(grpcurl, ['-plaintext', ...words])).stdout;
      const auth = ['-H', `authorization: Bearer ${key}`];
      assert.equal((await call(address, 'list')).trim().split('\n'), [
        'grpc.health.v1.Health',
        'grpc.reflection.v1.ServerReflection',
        'grpc.reflection.v1alpha.ServerReflection',
        'sluice.ingest.v1.IngestService',
      ]);
      const described = await call(address, 'describe', 'sluice.event.v1.Event');
      assert.match(described, /string event_id = 1 \[.*sluice\.rules\.v1\.field.*required: ?true/s);
      assert.match(await call(address, 'grpc.health.v1.Health/Check'), /SERVING/);
      const request = (id: string) =>
        JSON.stringify({ batchId: id, attempt: 1, batch: { events: [event(`${id}-1`), event(`${id}-2`)] } });
      const answer = JSON.parse(
        await call(...auth, '-d', request('unary'), address, 'sluice.ingest.v1.IngestService/Publish'),
      ) as { result: { accepted: number } };
      assert.is(answer.result.accepted, 2);
      const streamed = await call(
        ...auth,
        '-d',
        `${request('one')}\n${request('two')}`,
        address,
        'sluice.ingest.v1.IngestService/PublishStream',
      );
      assert.is(streamed.match(/"accepted": \{/g)?.length, 2);
      assert.match(streamed, /"limits": \{/);
      const ids = (await stored(nats)).flatMap(({ batches }) => batches.map(({ batchId }) => batchId));
      assert.equal(ids.sort(), ['one', 'two', 'unary']);
      try {
        await call('-d', request('no'), address, 'sluice.ingest.v1.IngestService/Publish');
        assert.unreachable();
      } catch (error) {
        const { stderr } = error as { stderr: string };
        assert.match(stderr, /Unauthenticated/);
        assert.match(stderr, /key_missing/);
        assert.match(stderr, /authorization: Bearer/);
      }
    });
  });
}

test.run();
