/** `sluice doctor`, and what the command line says of mistakes. */
import { existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { flagsOf, freePorts, sluice, withFolder } from './testing/running-stack.js';

test('where all is there it ends with 0, a line per check, and leaves no folder', async () => {
  await withFolder(async (folder) => {
    const { code, out } = await sluice(['doctor', ...flagsOf(join(folder, 'deep', 'data'), await freePorts())]);
    assert.is(code, 0, out);
    for (const what of ['Node', 'nats-server', 'embedded ClickHouse', 'data folder', 'free disk', 'port ']) {
      assert.match(out, new RegExp(`^✓ ${what}`, 'm'));
    }
    assert.not(out.includes('✗'));
    assert.not(existsSync(join(folder, 'deep')));
  });
});

test('a busy port and a folder that cannot be made are reported with the fix, in one go, and exit code 1', async () => {
  await withFolder(async (folder) => {
    writeFileSync(join(folder, 'file'), '');
    const holder = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => holder.once('listening', resolve));
    const { port } = holder.address() as { port: number };
    try {
      const ports = { ...(await freePorts()), natsPort: port };
      const data = join(folder, 'file', 'data');
      const { code, out } = await sluice(['doctor', ...flagsOf(data, ports)]);
      assert.is(code, 1);
      assert.match(out, new RegExp(`^✗ port ${port} .*process ${process.pid}.*--nats-port`, 'm'));
      assert.match(out, /^✗ data folder .*cannot be written.*--data/m);
      const up = await sluice(['up', ...flagsOf(data, ports)]);
      assert.is(up.code, 1);
      assert.match(up.err, /^The data folder .* cannot be made: .*--data\.\n$/);
    } finally {
      await new Promise((resolve) => holder.close(resolve));
    }
  });
});

test('two parts on one port are reported ahead, as `up` would', async () => {
  await withFolder(async (folder) => {
    const ports = await freePorts();
    const flags = flagsOf(folder, { ...ports, natsMonitorPort: ports.natsPort });
    const doctor = await sluice(['doctor', ...flags]);
    assert.is(doctor.code, 1);
    assert.match(doctor.out, new RegExp(`^✗ port ${ports.natsPort} .*twice.*--nats-monitor-port`, 'm'));
    const up = await sluice(['up', ...flags]);
    assert.is(up.code, 1);
    assert.match(up.err, /^Port \d+ is wanted twice.*--nats-monitor-port.*\n$/);
  });
});

test.run();
