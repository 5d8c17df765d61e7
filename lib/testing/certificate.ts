/** Certificates for tests, made with openssl. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** PEM texts. */
export interface TestCertificate {
  readonly key: string;
  readonly cert: string;
}

export interface TestAuthority {
  /** Its own certificate, PEM. */
  readonly ca: string;
  issue(options?: IssueOptions): TestCertificate;
}

export interface IssueOptions {
  /** What it is valid for. @default 'IP:127.0.0.1' */
  readonly names?: string;
  readonly commonName?: string;
  /** From now; below 0: it has expired. @default 1 */
  readonly days?: number;
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

function inFolder<T>(work: (path: (name: string) => string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-cert-'));
  try {
    return work((name) => join(folder, name));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const openssl = (...args: string[]): void => void execFileSync('openssl', args, { stdio: 'pipe' });

/** A key and its certificate, signed by itself, valid for a day for the address 127.0.0.1. */
export const makeCertificate = (): TestCertificate => signedByItself('subjectAltName=IP:127.0.0.1');

function signedByItself(extension: string): TestCertificate {
  return inFolder((path) => {
    const [key, cert] = [path('key.pem'), path('cert.pem')];
    openssl(
      ...['req', '-x509', ...newKey, '-days', '1', '-subj', '/CN=sluice test', '-addext', extension],
      ...['-keyout', key, '-out', cert],
    );
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
  });
}

/** An authority that issues certificates for servers and clients. */
export function createAuthority(): TestAuthority {
  const own = signedByItself('keyUsage=critical,keyCertSign,cRLSign');
  return {
    ca: own.cert,
    issue: ({ names = 'IP:127.0.0.1', commonName = 'sluice test leaf', days = 1 } = {}) =>
      inFolder((path) => {
        const [caKey, ca, key, request, cert, extensions] = [
          ...[path('ca-key.pem'), path('ca.pem'), path('key.pem')],
          ...[path('request.pem'), path('cert.pem'), path('extensions')],
        ] as [string, string, string, string, string, string];
        writeFileSync(caKey, own.key);
        writeFileSync(ca, own.cert);
        writeFileSync(extensions, `subjectAltName=${names}\nextendedKeyUsage=serverAuth,clientAuth\n`);
        openssl('req', ...newKey, '-subj', `/CN=${commonName}`, '-keyout', key, '-out', request);
        openssl(
          ...['x509', '-req', '-in', request, '-CA', ca, '-CAkey', caKey, '-CAcreateserial', '-days', String(days)],
          ...['-extfile', extensions, '-out', cert],
        );
        return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
      }),
  };
}
