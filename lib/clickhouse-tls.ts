/** Which authorities clients of ClickHouse trust, for an https:// address. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { UsageError } from './errors.js';

/**
 * A part of the client's settings.
 * @param ca path of a PEM file; '': the system's authorities
 * @throws UsageError when it cannot be read, or the address is one without TLS
 */
export function clickhouseTls(url: string, ca: string): { readonly tls?: { readonly ca_cert: Buffer } } {
  if (ca === '') return {};
  if (!url.startsWith('https:')) {
    throw new UsageError('--clickhouse-tls-ca is given, and --clickhouse-url has no TLS: begin it with https://.');
  }
  try {
    const text = readFileSync(ca);
    new X509Certificate(text);
    return { tls: { ca_cert: text } };
  } catch (error) {
    throw new UsageError(
      `--clickhouse-tls-ca: the file ${ca} holds no certificate that can be read (${(error as Error).message}).`,
    );
  }
}
