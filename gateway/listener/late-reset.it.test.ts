/** Early answers reach clients that still send their body: the real curl, and a client that counts its places. */
import { execFile, execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { ClientHttp2Session } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../../lib/testing/until.js';
import { withSession } from '../testing/bare-call.js';
import { onBothPaths } from '../testing/running-gateway.js';

const service = '/sluice.ingest.v1.IngestService';
const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function speaksHttp2(): boolean {
  try {
    return /\bHTTP2\b/.test(String(execFileSync('curl', ['--version'])));
  } catch {
    return false;
  }
}

/** The status that curl shows, or how it failed. */
async function curl(file: string, url: string, headers: readonly string[]): Promise<string> {
  const words = ['-s', '-S', '--http2-prior-knowledge', '--max-time', '10', '-o', '/dev/null', '-w', '%{http_code}'];
  const told = headers.flatMap((header) => ['-H', header]);
  try {
    return (await promisify(execFile)('curl', [...words, ...told, '--data-binary', `@${file}`, url])).stdout;
  } catch (error) {
    return (error as { stderr: string }).stderr.trim();
  }
}

if (!speaksHttp2()) {
  test('curl with HTTP/2 is not on this machine: nothing to check', () => {
    process.stderr.write('skipped: no curl with HTTP/2 on PATH\n');
  });
} else {
  onBothPaths(test, 'curl shows the status of a refusal that comes while it sends its body', async (withGateway) => {
    const folder = await mkdtemp(join(tmpdir(), 'sluice-curl-'));
    try {
      const file = join(folder, 'body');
      await writeFile(file, Buffer.alloc(6 * 1024 ** 2, ' '));
      await withGateway({}, async ({ url, key }) => {
        const json = 'content-type: application/json';
        const proto = 'content-type: application/proto';
        const good = `authorization: Bearer ${key}`;
        const bad = 'authorization: Bearer wrong';
        const kinds: [status: string, path: string, headers: string[]][] = [
          ['401', '/v1/events/batch', [json, bad]],
          ['413', '/v1/events/batch', [json, good]],
          ['404', '/nothing/here', [json, good]],
          ['401', `${service}/Publish`, [proto, bad]],
          ['400', `${service}/Publish`, [proto, good]],
        ];
        const lost: string[] = [];
        for (const [status, path, headers] of kinds) {
          for (let i = 0; i < 4; i++) {
            const shown = await curl(file, `${url}${path}`, headers);
            if (shown !== status) lost.push(`${path} ${headers}: ${shown}`);
          }
        }
        // Resets right behind the answer lost three in four. On a busy machine curl may sleep through the time that they wait.
        assert.ok(lost.length <= 5, `${lost.length} of 20 were lost: ${lost.join('; ')}`);
      });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
}

/** A call without a valid key, whose body never ends. Tells how long after its answer it was reset. */
function refused(session: ClientHttp2Session, type: string): { answered: boolean; resetAfterMs: number | undefined } {
  const seen: { answered: boolean; resetAfterMs: number | undefined } = { answered: false, resetAfterMs: undefined };
  const stream = session.request(
    { ':method': 'POST', ':path': `${service}/Publish`, 'content-type': type, authorization: 'Bearer wrong' },
    { endStream: false },
  );
  let answeredAt = 0;
  stream.on('error', () => {});
  stream.on('end', () => {
    seen.answered = true;
    answeredAt = performance.now();
  });
  stream.on('close', () => {
    seen.resetAfterMs = performance.now() - answeredAt;
  });
  stream.resume();
  stream.write('x');
  return seen;
}

onBothPaths(test, 'the reset waits behind an early answer, but not for gRPC', async (withGateway) => {
  await withGateway({}, async ({ gateway, url }) => {
    await withSession(url, async (session) => {
      // Of five calls, since a busy machine may delay some.
      const resets = async (type: string): Promise<number[]> => {
        const seen = Array.from({ length: 5 }, () => refused(session, type));
        await until('they are reset', () => seen.every((one) => one.resetAfterMs !== undefined), 2_000);
        assert.ok(seen.every(({ answered }) => answered));
        return seen.map(({ resetAfterMs = 0 }) => resetAfterMs);
      };
      const connect = await resets('application/proto');
      assert.ok(Math.max(...connect) > 60, `reset after ${connect} ms`);
      const grpc = await resets('application/grpc');
      assert.ok(Math.min(...grpc) < 60, `reset after ${grpc} ms`);
      assert.is(gateway.requests, 0);
    });
  });
});

onBothPaths(test, 'resets that wait are sent when a connection has many calls', async (withGateway) => {
  await withGateway({ trustedProxies: ['127.0.0.1'] }, async ({ gateway, url }) => {
    await withSession(url, async (session) => {
      const some = (count: number) => Array.from({ length: count }, () => refused(session, 'application/proto'));
      const resetSoon = async (): Promise<boolean> => {
        const few = some(20);
        await until('they are answered', () => few.every(({ answered }) => answered), 5_000);
        const more = some(30);
        await until('all are over', () => [...few, ...more].every((one) => one.resetAfterMs !== undefined), 5_000);
        return few.some(({ resetAfterMs = 0 }) => resetAfterMs < 90);
      };
      // On a busy machine the further calls may begin when the time of the first ones has passed.
      let soon = false;
      for (let i = 0; i < 5 && !soon; i++) soon = await resetSoon();
      assert.ok(soon, 'the first ones did not wait for their time');
      await wait(10);
      assert.is(gateway.requests, 0);
    });
  });
});

test.run();
