/** `sluice tenant` and `sluice query` against a running stack. */
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { IngestService } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { until } from '../lib/testing/until.js';
import { freePorts, sluice, startUp, withFolder } from './testing/running-stack.js';

test('a key that is added works, is listed, and once revoked is refused within a second and ends its stream', async () => {
  await withFolder(async (data) => {
    const up = await startUp(data, await freePorts());
    const added = await sluice(['tenant', 'add', 'acme', '--note', 'for the shop', '--data', data]);
    assert.is(added.code, 0, added.err);
    const key = added.out.trim();
    const keyId = /Key (\S+) of acme/.exec(added.err)?.[1] ?? '';
    const listed = await sluice(['tenant', 'list', '--data', data]);
    assert.match(listed.out, new RegExp(`^acme +${keyId} +active .*for the shop$`, 'm'));
    assert.not(listed.out.includes(key));

    const url = `http://127.0.0.1:${up.ports.port}`;
    const send = async (): Promise<number> => {
      const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
      const body = JSON.stringify({ eventId: 't-1', type: 'EVENT_TYPE_PAGE', occurredAt: new Date().toISOString() });
      return (await fetch(`${url}/v1/events`, { method: 'POST', headers, body })).status;
    };
    await until('the new key is taken', async () => (await send()) === 202, 2_000);
    let streamEnd: unknown;
    const hold = new AbortController();
    const answers = createClient(IngestService, createGrpcTransport({ baseUrl: url })).publishStream(
      // Nothing is sent: the stream stays open until the gateway ends it.
      (async function* () {
        await new Promise((resolve) => hold.signal.addEventListener('abort', resolve));
      })(),
      { headers: { authorization: `Bearer ${key}` } },
    );
    const reading = (async () => {
      for await (const _ of answers);
      return 'ended';
    })().catch((error: unknown) => error);
    void reading.then((end) => {
      streamEnd = end;
    });

    const revoked = await sluice(['tenant', 'revoke', keyId, '--data', data]);
    assert.is(revoked.code, 0, revoked.err);
    await until('the key is refused', async () => (await send()) === 401, 1_000);
    await until('its stream has ended', () => streamEnd !== undefined, 1_000);
    hold.abort();
    assert.match(String(streamEnd), /unauthenticated/i);
    assert.match((await sluice(['tenant', 'list', '--data', data])).out, new RegExp(`${keyId} +revoked `));
    assert.is((await sluice(['tenant', 'revoke', 'nosuchkey', '--data', data])).code, 1);
    assert.is((await sluice(['tenant', 'add', 'Not A Tenant', '--data', data])).code, 1);
    const wrong = await sluice(['query', 'SELECT nothing FROM nowhere', '--data', data]);
    assert.is(wrong.code, 1);
    assert.match(wrong.err, /^ClickHouse: /);
    assert.is((await sluice(['query', 'SELECT 1 + 1', '--format', 'TSV', '--data', data])).out, '2\n');
    up.child.kill('SIGINT');
    assert.is((await up.ended).code, 0);
  });
});

test.run();
