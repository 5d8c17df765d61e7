/**
 * Secrets that lie in files: a password, a token, a key. Command lines show in `ps`, files of mode 0600 do not.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { UsageError } from './errors.js';

/** A secret is short; a path that names a disk or a log by mistake is not read whole. */
const maxBytes = 64 * 1024;

/**
 * Reads a secret. A line end behind it is not part of it.
 * @param setting the flag that named the file, for errors
 * @throws UsageError that names the flag and the file: it cannot be read, is empty, or holds more than 64 KiB
 */
export function readSecret(file: string, setting: string): string {
  let bytes: Buffer;
  try {
    bytes = firstBytes(file, maxBytes + 1);
  } catch (error) {
    throw new UsageError(`${setting}: the file ${file} cannot be read (${(error as Error).message}).`);
  }
  if (bytes.length > maxBytes) throw new UsageError(`${setting}: the file ${file} holds more than ${maxBytes} bytes.`);
  const secret = bytes.toString('utf8').replace(/\r?\n$/, '');
  if (secret === '') throw new UsageError(`${setting}: the file ${file} is empty.`);
  return secret;
}

/**
 * The password that a role's settings give.
 * @throws UsageError it is given twice, or its file cannot be used
 */
export function clickhousePassword(config: {
  readonly clickhousePassword: string;
  readonly clickhousePasswordFile: string;
}): string {
  if (config.clickhousePasswordFile === '') return config.clickhousePassword;
  if (config.clickhousePassword !== '')
    throw new UsageError('--clickhouse-password and --clickhouse-password-file are both given: leave one out.');
  return readSecret(config.clickhousePasswordFile, '--clickhouse-password-file');
}

function firstBytes(file: string, most: number): Buffer {
  const bytes = Buffer.alloc(most);
  const fd = openSync(file, 'r');
  try {
    let size = 0;
    for (let read = -1; read !== 0 && size < most; size += read) read = readSync(fd, bytes, size, most - size, null);
    return bytes.subarray(0, size);
  } finally {
    closeSync(fd);
  }
}
