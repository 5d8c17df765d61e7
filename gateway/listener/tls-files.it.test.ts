/** TLS files that change under a listener, and clients that must show a certificate. */
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { pino } from 'pino';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Logger } from '../../lib/logger.js';
import { createAuthority, type TestAuthority, type TestCertificate } from '../../lib/testing/certificate.js';
import { until } from '../../lib/testing/until.js';
import type { TlsRefusal } from '../metrics.js';
import { type FrontServer, listen } from './server.js';
import { openTlsFiles, type TlsFiles, type TlsFilesOptions } from './tls-files.js';

const authority = createAuthority();
const lookMs = 20;

interface Scene {
  readonly server: FrontServer;
  readonly files: TlsFiles;
  readonly path: (name: string) => string;
  /** As certbot does it: each file beside the old one, then renamed over it. */
  put(certificate: Partial<TestCertificate>): void;
  /** Messages of the log. */
  readonly told: (message: RegExp) => Record<string, unknown>[];
  readonly refused: TlsRefusal[];
}

function replace(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

async function withTls(
  use: (scene: Scene) => Promise<void>,
  first: TestCertificate = authority.issue({ commonName: 'first' }),
  clientCa?: string,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-tls-'));
  const path = (name: string): string => join(folder, name);
  const put = ({ cert, key }: Partial<TestCertificate>): void => {
    if (key !== undefined) replace(path('key.pem'), key);
    if (cert !== undefined) replace(path('cert.pem'), cert);
  };
  put(first);
  if (clientCa !== undefined) replace(path('ca.pem'), clientCa);
  const lines: string[] = [];
  const logger = pino({ level: 'info' }, { write: (line) => void lines.push(line) }) as Logger;
  const options: TlsFilesOptions = {
    tlsCert: path('cert.pem'),
    tlsKey: path('key.pem'),
    tlsClientCa: clientCa === undefined ? '' : path('ca.pem'),
    logger,
    lookMs,
  };
  const files = (await openTlsFiles(options)) as TlsFiles;
  const refused: TlsRefusal[] = [];
  const server = await listen({
    host: '127.0.0.1',
    port: 0,
    tls: files,
    maxConnections: 100,
    maxConnectionAge: 600_000,
    grace: 500,
    onRequest: (_, response) => void (response as import('node:http').ServerResponse).end('here'),
    onRefused: (reason) => void refused.push(reason),
    logger,
  });
  const told = (message: RegExp) =>
    lines.map((line) => JSON.parse(line) as Record<string, unknown>).filter(({ msg }) => message.test(String(msg)));
  try {
    await use({ server, files, path, put, told, refused });
  } finally {
    files.close();
    await server.drain('end of the test', 100);
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Answer {
  readonly socket: TLSSocket;
  /** Common name of the server's certificate. */
  readonly name: string;
  ask(): Promise<string>;
}

/** A connection that speaks HTTP/1.1. Rejects with the error of the handshake. */
function dial(port: number, options: ConnectionOptions = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const socket = connect(
      { host: '127.0.0.1', port, ca: authority.ca, ALPNProtocols: ['http/1.1'], ...options },
      () => {
        const name = String(socket.getPeerCertificate().subject?.CN);
        const ask = () =>
          new Promise<string>((answered, failed) => {
            socket.once('data', (chunk) => answered(String(chunk)));
            socket.once('error', failed);
            socket.once('close', () => failed(new Error('closed')));
            socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
          });
        resolve({ socket, name, ask });
      },
    );
    socket.on('error', reject);
  });
}

async function nameNow(port: number, options: ConnectionOptions = {}): Promise<string> {
  const { socket, name } = await dial(port, options);
  socket.destroy();
  return name;
}

/** What a client sees whose connection is refused: in TLS 1.3 only when it reads. */
async function refusal(port: number, options: ConnectionOptions): Promise<string> {
  try {
    const { socket, ask } = await dial(port, options);
    try {
      return `answered: ${await ask()}`;
    } finally {
      socket.destroy();
    }
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? (error as Error).message;
  }
}

test('a renewed certificate serves new connections, and those that are open go on', async () => {
  await withTls(async ({ server, files, put, told }) => {
    const old = await dial(server.port);
    assert.is(old.name, 'first');
    const before = files.expiresAtMs;
    put(authority.issue({ commonName: 'second', days: 90 }));
    await until('the second serves', async () => (await nameNow(server.port)) === 'second');
    assert.match(await old.ask(), /200 OK/);
    assert.ok(files.expiresAtMs > before + 80 * 86_400_000);
    assert.equal(files.reloads, { loaded: 1, refused: 0 });
    assert.is(told(/new TLS files are in use/).length, 1);
    old.socket.destroy();
  });
});

test('links that are swapped at once, as Kubernetes does it, are followed', async () => {
  await withTls(async ({ server, path, put }) => {
    const generation = (name: string): void => {
      const { cert, key } = authority.issue({ commonName: name });
      mkdirSync(path(name));
      writeFileSync(path(`${name}/cert.pem`), cert);
      writeFileSync(path(`${name}/key.pem`), key);
      symlinkSync(name, path('..data.new'));
      renameSync(path('..data.new'), path('..data'));
    };
    generation('first-generation');
    for (const file of ['cert.pem', 'key.pem']) {
      rmSync(path(file));
      symlinkSync(join('..data', file), path(file));
    }
    await until('the first generation', async () => (await nameNow(server.port)) === 'first-generation');
    generation('second-generation');
    await until('the second generation', async () => (await nameNow(server.port)) === 'second-generation');
    put({});
  });
});

test('a half-written pair changes nothing and is reported once, with what is wrong', async () => {
  await withTls(async ({ server, files, path, put, told }) => {
    const next = authority.issue({ commonName: 'second' });
    put({ cert: next.cert });
    await until('told', () => told(/cannot be used/).length > 0);
    await new Promise((resolve) => setTimeout(resolve, 10 * lookMs));
    assert.is(told(/cannot be used/).length, 1);
    assert.match(String(told(/cannot be used/)[0]?.reason), /key does not belong to the certificate/);
    assert.is(await nameNow(server.port), 'first');
    for (const [text, reason] of [
      [next.cert.slice(0, 200), /holds no whole certificate/],
      ['', /holds no whole certificate/],
    ] as const) {
      replace(path('cert.pem'), text);
      await until('told', () => reason.test(String(told(/cannot be used/).at(-1)?.reason)));
    }
    rmSync(path('cert.pem'));
    await until('told', () => /cannot read .* \(ENOENT\)/.test(String(told(/cannot be used/).at(-1)?.reason)));
    assert.is(await nameNow(server.port), 'first');
    put(next);
    await until('the second serves', async () => (await nameNow(server.port)) === 'second');
    assert.is(files.reloads.loaded, 1);
  });
});

test('an expired certificate does not take the place of a valid one', async () => {
  await withTls(async ({ server, put, told }) => {
    put(authority.issue({ commonName: 'expired', days: -1 }));
    await until('told', () => told(/cannot be used/).length > 0);
    assert.match(String(told(/cannot be used/)[0]?.reason), /the new certificate expired on/);
    assert.is(await nameNow(server.port), 'first');
  });
  await withTls(
    async ({ told }) => {
      assert.is(told(/certificate has expired/).length, 1);
    },
    authority.issue({ days: -1 }),
  );
});

test('a certificate is reported seven days before its end, a short-lived one in its last third', async () => {
  const warned = async (days: number): Promise<boolean> => {
    let found = false;
    await withTls(async ({ told }) => {
      await new Promise((resolve) => setTimeout(resolve, 5 * lookMs));
      found = told(/expires soon/).length === 1;
    }, authority.issue({ days }));
    return found;
  };
  assert.is(await warned(-1), true);
  assert.is(await warned(1), false, 'a certificate of one day, on its first');
  assert.is(await warned(90), false);
});

test('with a client CA, connections without a certificate of it end before anything of them is read', async () => {
  const clients: TestAuthority = createAuthority();
  await withTls(
    async ({ server: { port }, refused, path }) => {
      const good = clients.issue({ commonName: 'phone app' });
      const { socket, ask } = await dial(port, good);
      assert.match(await ask(), /200 OK/);
      socket.destroy();
      for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
        const alert = maxVersion === 'TLSv1.2' ? /HANDSHAKE_FAILURE/ : /CERTIFICATE_REQUIRED/;
        assert.match(await refusal(port, { maxVersion }), alert);
        const ended = /ECONNRESET|closed|EPIPE/;
        assert.match(await refusal(port, { maxVersion, ...authority.issue() }), ended);
        assert.match(await refusal(port, { maxVersion, ...clients.issue({ days: -1 }) }), ended);
      }
      await until('counted', () => refused.length === 6);
      assert.equal([...refused].sort(), [
        ...Array(4).fill('bad_certificate'),
        ...Array(2).fill('no_certificate'),
      ] as TlsRefusal[]);

      // What the old authority vouched for ends with it, session tickets too.
      const others = createAuthority();
      let session: Buffer | undefined;
      const resumable = await dial(port, good);
      resumable.socket.on('session', (ticket) => {
        session = ticket;
      });
      assert.match(await resumable.ask(), /200 OK/);
      await until('a ticket', () => session !== undefined);
      resumable.socket.destroy();
      const again = await dial(port, { ...good, session });
      assert.is(again.socket.isSessionReused(), true);
      again.socket.destroy();
      replace(path('ca.pem'), others.ca);
      const newcomer = others.issue();
      await until('the new CA counts', async () => /200 OK/.test(await refusal(port, newcomer)));
      assert.match(await refusal(port, { ...good, session }), /ECONNRESET|closed|EPIPE/);
    },
    undefined,
    clients.ca,
  );
});

test('a client CA without a certificate in it is refused: with none, every public authority would vouch', async () => {
  for (const text of ['', 'no PEM']) {
    try {
      await withTls(async () => assert.unreachable(), undefined, text);
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, /--tls-client-ca: the file holds no whole certificate/);
    }
  }
  await withTls(
    async ({ server: { port }, path, told }) => {
      replace(path('ca.pem'), '');
      await until('told', () => told(/cannot be used/).length > 0);
      assert.match(await refusal(port, authority.issue()), /ECONNRESET|closed|EPIPE/);
    },
    undefined,
    createAuthority().ca,
  );
});

test('flags that do not go together and files that cannot be used are refused with what to do', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-tls-'));
  const logger = pino({ level: 'silent' }) as Logger;
  const refusedWith = async (flags: Partial<TlsFilesOptions>, message: RegExp): Promise<void> => {
    try {
      await openTlsFiles({ tlsCert: '', tlsKey: '', tlsClientCa: '', logger, ...flags });
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, message);
    }
  };
  try {
    assert.is(await openTlsFiles({ tlsCert: '', tlsKey: '', tlsClientCa: '', logger }), undefined);
    await refusedWith({ tlsCert: 'x' }, /--tls-cert and --tls-key go together/);
    await refusedWith({ tlsClientCa: 'x' }, /--tls-client-ca needs TLS/);
    await refusedWith({ tlsCert: folder, tlsKey: folder }, /is not a file of at most 1024 KiB/);
    const { cert, key } = authority.issue();
    const [certFile, keyFile] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
    writeFileSync(certFile, cert);
    writeFileSync(keyFile, key.slice(0, 60));
    await refusedWith({ tlsCert: certFile, tlsKey: keyFile }, /holds no whole private key/);
    writeFileSync(keyFile, '-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIH=\n-----END ENCRYPTED PRIVATE KEY-----\n');
    await refusedWith({ tlsCert: certFile, tlsKey: keyFile }, /encrypted with a passphrase/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('a client cannot renegotiate, nor speak TLS below 1.2', async () => {
  await withTls(async ({ server: { port } }) => {
    const { socket } = await dial(port, { maxVersion: 'TLSv1.2' });
    const error = await new Promise<Error | null>((resolve) => {
      socket.once('error', resolve);
      socket.renegotiate({}, resolve);
    });
    assert.instance(error, Error);
    socket.destroy();
    const old = await refusal(port, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' });
    assert.match(old, /PROTOCOL_VERSION/);
  });
});

test.run();
