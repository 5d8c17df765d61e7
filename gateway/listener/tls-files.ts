/**
 * The files of `--tls-cert`, `--tls-key` and `--tls-client-ca`: read at the start, and again when they change.
 *
 *   TLS-1  They are taken together when they fit each other. Otherwise the listener keeps what it has.
 *   TLS-2  New handshakes use what was taken last. Connections that are open stay as they are until their age (`maxConnectionAge`, server.ts).
 *   TLS-3  What does not fit is reported once, after two looks: certbot replaces its files one after the other.
 *   TLS-4  An expired certificate does not take the place of a valid one.
 *
 * The contents are compared, not the times of the files: a file that is renamed over another, and a symbolic link that is
 * swapped (certbot, Kubernetes secrets), may keep time and size.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { UsageError } from '../../lib/errors.js';
import type { Logger } from '../../lib/logger.js';
import { dayMs, MiB } from '../../lib/units.js';
import { secureContext, type TlsMaterial } from './listener.js';

export interface TlsFilesOptions {
  /** Paths of PEM files; '' for none. */
  readonly tlsCert: string;
  readonly tlsKey: string;
  /** CA that clients' certificates must be signed by; '': clients need none. */
  readonly tlsClientCa: string;
  readonly logger: Logger;
  /** ms between two looks at the files. @default 2 s */
  readonly lookMs?: number;
}

export interface TlsFiles extends TlsMaterial {
  /** Calls back with each later set of files that fits. */
  onChange(listener: (material: TlsMaterial) => void): void;
  /** When the first certificate of the chain in use expires, ms since 1970. */
  readonly expiresAtMs: number;
  /** How changes ended since the start. */
  readonly reloads: { readonly loaded: number; readonly refused: number };
  /** Looks no more. */
  close(): void;
}

const lookEveryMs = 2_000;
/** Looks at the same files that do not fit, before the report (TLS-3). */
const looksBeforeTold = 2;
/** Certificates and keys are some kB; all authorities of an operating system are 250 kB. */
const maxBytes = MiB;
/** Told from so long before the end on, and then once a day; sooner for certificates that live for days only. */
const warnBeforeMs = 7 * dayMs;

/** A set of files that fits. */
interface TlsSet {
  readonly material: TlsMaterial;
  readonly expiresAtMs: number;
  readonly warnFromMs: number;
}

/**
 * @returns undefined without TLS
 * @throws UsageError when a flag is missing, or the files cannot be used
 */
export async function openTlsFiles(options: TlsFilesOptions): Promise<TlsFiles | undefined> {
  const { tlsCert, tlsKey, tlsClientCa, logger } = options;
  if (tlsCert === '' && tlsKey === '') {
    if (tlsClientCa === '') return undefined;
    throw new UsageError('--tls-client-ca needs TLS: give --tls-cert and --tls-key too.');
  }
  if (tlsCert === '' || tlsKey === '') throw new UsageError('--tls-cert and --tls-key go together: give both or none.');
  const first = setOf(await readMaterial(options));
  const files = watchFiles(options, first);
  if (first.expiresAtMs < Date.now()) logger.error(expiryOf(first), 'the TLS certificate has expired');
  return files;
}

function watchFiles(options: TlsFilesOptions, first: TlsSet): TlsFiles {
  const { logger } = options;
  const listeners: ((material: TlsMaterial) => void)[] = [];
  const reloads = { loaded: 0, refused: 0 };
  let inUse = first;
  let refused: { readonly why: string; looks: number } | undefined;
  let warnAtMs = 0;
  let looking = false;

  const refuse = (why: string): void => {
    refused = refused?.why === why ? refused : { why, looks: 0 };
    if (++refused.looks !== looksBeforeTold) return;
    reloads.refused++;
    logger.error(
      { reason: why, ...expiryOf(inUse) },
      'the new TLS files cannot be used: going on with the present ones',
    );
  };

  const look = async (): Promise<void> => {
    try {
      const material = await readMaterial(options);
      if (!isSame(material, inUse.material)) {
        const next = setOf(material);
        if (next.expiresAtMs < Date.now() && inUse.expiresAtMs >= Date.now()) {
          throw new UsageError(`--tls-cert: the new certificate expired on ${dateOf(next.expiresAtMs)}.`); // TLS-4
        }
        inUse = next;
        reloads.loaded++;
        warnAtMs = 0;
        for (const listener of listeners) listener(material);
        logger.info(expiryOf(inUse), 'new TLS files are in use');
      }
      refused = undefined;
    } catch (error) {
      refuse(error instanceof UsageError ? error.message : String(error));
    }
  };

  const warn = (): void => {
    const now = Date.now();
    if (now < inUse.warnFromMs || now < warnAtMs) return;
    warnAtMs = now + dayMs;
    logger.warn(expiryOf(inUse), 'the TLS certificate expires soon, or has expired: renew it; no restart is needed');
  };

  const timer = setInterval(() => {
    warn();
    if (looking) return;
    looking = true;
    void look().finally(() => {
      looking = false;
    });
  }, options.lookMs ?? lookEveryMs);
  timer.unref();

  return {
    ...first.material,
    onChange: (listener) => void listeners.push(listener),
    get expiresAtMs() {
      return inUse.expiresAtMs;
    },
    reloads,
    close: () => clearInterval(timer),
  };
}

const dateOf = (ms: number): string => new Date(ms).toISOString();
const expiryOf = ({ expiresAtMs }: TlsSet): { readonly expires: string } => ({ expires: dateOf(expiresAtMs) });

const isSame = (a: TlsMaterial, b: TlsMaterial): boolean =>
  a.cert === b.cert && a.key === b.key && a.clientCa === b.clientCa;

async function readMaterial({ tlsCert, tlsKey, tlsClientCa }: TlsFilesOptions): Promise<TlsMaterial> {
  const cert = await readPem('--tls-cert', tlsCert);
  const key = await readPem('--tls-key', tlsKey);
  return { cert, key, clientCa: tlsClientCa === '' ? undefined : await readPem('--tls-client-ca', tlsClientCa) };
}

async function readPem(flag: string, path: string): Promise<string> {
  try {
    const file = await stat(path);
    if (!file.isFile() || file.size > maxBytes) {
      throw new UsageError(`${flag}: ${path} is not a file of at most ${maxBytes / 1024} KiB: give a PEM file.`);
    }
    return await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    throw new UsageError(`${flag}: cannot read ${path} (${code ?? message}).`);
  }
}

/** @throws UsageError when these do not fit each other */
function setOf(material: TlsMaterial): TlsSet {
  const chain = certificatesIn('--tls-cert', material.cert);
  const key = keyIn(material.key);
  const [leaf] = chain;
  if (leaf?.checkPrivateKey(key) !== true) {
    throw new UsageError(
      'The TLS key does not belong to the certificate: --tls-cert must begin with the certificate of --tls-key, and the authorities follow.',
    );
  }
  // Without a certificate in it, every authority that Node knows would vouch for clients.
  if (material.clientCa !== undefined) certificatesIn('--tls-client-ca', material.clientCa);
  try {
    secureContext(material);
  } catch (error) {
    throw new UsageError(
      `The TLS certificate or key cannot be used (${String(error)}): give PEM files with --tls-cert and --tls-key.`,
    );
  }
  const expiresAtMs = Math.min(...chain.map(({ validTo }) => Date.parse(validTo)));
  const lifeMs = expiresAtMs - Date.parse(leaf.validFrom);
  return { material, expiresAtMs, warnFromMs: expiresAtMs - Math.min(warnBeforeMs, Math.max(0, lifeMs) / 3) };
}

const pemCertificate = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/** @throws UsageError when there is none, or one cannot be read */
function certificatesIn(flag: string, text: string): X509Certificate[] {
  const blocks = text.match(pemCertificate) ?? [];
  if (blocks.length === 0 || blocks.length !== text.split('-----BEGIN CERTIFICATE-----').length - 1) {
    throw new UsageError(
      `${flag}: the file holds no whole certificate: give a PEM file ("-----BEGIN CERTIFICATE-----").`,
    );
  }
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch (error) {
    throw new UsageError(`${flag}: a certificate in the file cannot be read (${(error as Error).message}).`);
  }
}

/** @throws UsageError when it cannot be read */
function keyIn(text: string): KeyObject {
  try {
    return createPrivateKey(text);
  } catch (error) {
    const encrypted = /ENCRYPTED/.test(text);
    throw new UsageError(
      encrypted
        ? '--tls-key: the key is encrypted with a passphrase, which the gateway cannot ask for: openssl pkey -in key.pem -out plain.pem'
        : `--tls-key: the file holds no whole private key (${(error as Error).message}): give a PEM file ("-----BEGIN PRIVATE KEY-----").`,
    );
  }
}
