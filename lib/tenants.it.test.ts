import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from './logger.js';
import { addTenant, listTenants, revokeKey, watchTenants } from './tenants.js';
import { withNats } from './testing/nats.js';
import { until } from './testing/until.js';

const refusal = (attempt: () => unknown): string => {
  try {
    attempt();
    return 'accepted';
  } catch (error) {
    return (error as { code: string }).code;
  }
};

test('a key works in every directory at once, and within a second of its revocation in none', async () => {
  await withNats(async ({ nc }) => {
    const early = await watchTenants(nc, silentLogger);
    const { key, keyId } = await addTenant(nc, { tenant: 'acme', note: 'phone app' });
    const late = await watchTenants(nc, silentLogger);
    assert.equal(late.lookup(`Bearer ${key}`), { tenant: 'acme', keyId });
    await until(
      'the early directory knows the key',
      () => refusal(() => early.lookup(`Bearer ${key}`)) === 'accepted',
      1000,
    );
    const revoked: string[] = [];
    early.onRevoked((id) => revoked.push(id));
    await revokeKey(nc, keyId);
    await until(
      'both refuse',
      () => [early, late].every((d) => refusal(() => d.lookup(`Bearer ${key}`)) === 'key_unknown'),
      1000,
    );
    assert.equal(revoked, [keyId]);
    const [record] = await listTenants(nc);
    assert.is(record?.tenant, 'acme');
    assert.ok(record?.revokedAt);
    assert.not.match(JSON.stringify(record), key);
    await early.close();
    await late.close();
  });
});

test('what is not a known key is refused by what is wrong with it', async () => {
  await withNats(async ({ nc }) => {
    const directory = await watchTenants(nc, silentLogger);
    const { key } = await addTenant(nc, { tenant: 'acme' });
    await until('the key is known', () => refusal(() => directory.lookup(`Bearer ${key}`)) === 'accepted', 1000);
    assert.is(
      refusal(() => directory.lookup(undefined)),
      'key_missing',
    );
    assert.is(
      refusal(() => directory.lookup(`Basic ${key}`)),
      'key_missing',
    );
    assert.is(
      refusal(() => directory.lookup(`Bearer ${key.slice(0, -1)}${key.endsWith('a') ? 'b' : 'a'}`)),
      'key_unknown',
    );
    assert.is(
      refusal(() => directory.lookup(`Bearer ${'x'.repeat(10_000)}`)),
      'key_unknown',
    );
    const before = directory.stats();
    directory.lookup(`Bearer ${key}`);
    assert.is(directory.stats().hits, before.hits + 1);
    await directory.close();
  });
});

test('a killed and restarted nats-server does not end the watch', async () => {
  await withNats(async (nats) => {
    const directory = await watchTenants(nats.nc, silentLogger);
    nats.process().kill('SIGKILL');
    await nats.restart();
    await until('reconnected', () => !nats.nc.isClosed(), 1000);
    let added: { key: string } | undefined;
    for (let i = 0; i < 50 && added === undefined; i++) {
      added = await addTenant(nats.nc, { tenant: 'acme' }).catch(() => undefined);
    }
    const header = `Bearer ${added?.key}`;
    await until('the new key is known', () => refusal(() => directory.lookup(header)) === 'accepted', 20_000);
    await directory.close();
  });
});

test('names that are not tenants and keys that do not exist are refused', async () => {
  await withNats(async ({ nc }) => {
    for (const tenant of ['', 'A', 'a.b', '-a', 'a-', 'x'.repeat(64)]) {
      assert.match(
        await addTenant(nc, { tenant }).then(
          () => 'accepted',
          (e: Error) => e.message,
        ),
        /not a tenant id/,
      );
    }
    assert.match(
      await revokeKey(nc, 'nope').then(
        () => 'accepted',
        (e: Error) => e.message,
      ),
      /no key/,
    );
  });
});

test.run();
