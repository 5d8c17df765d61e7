/**
 * Secrets that lie in files: a password, a token, a key. Command lines show in `ps`, files of mode 0600 do not.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, closeSync, constants, lstatSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs';
import { UsageError } from './errors.js';
import { KiB } from './units.js';

/** A secret is short; a path that names a disk or a log by mistake is not read whole. */
const maxBytes = 64 * KiB;

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
 * Writes a file for its owner alone, at once: readers find the old one or the new one. It follows no symbolic link.
 * @throws Error as `open`, `write` and `rename` do
 */
export function writeSecret(file: string, text: string): void {
  const draft = `${file}.new`;
  rmSync(draft, { force: true });
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const fd = openSync(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    writeSync(fd, text);
  } finally {
    closeSync(fd);
  }
  // Also where the umask takes away the owner's rights.
  chmodSync(draft, 0o600);
  renameSync(draft, file);
}

/**
 * The secret of a file of ours, made when the file is missing or empty: 32 random bytes, in letters that need no quotes anywhere.
 * @param prefix stands before the random part
 * @throws UsageError the file is not a plain file of this user
 */
export function secretIn(file: string, prefix = ''): string {
  const found = lstatSync(file, { throwIfNoEntry: false });
  if (found !== undefined) {
    if (!found.isFile() || (process.getuid !== undefined && found.uid !== process.getuid()))
      throw new UsageError(
        `${file} is not a plain file of this user: remove it, and the next start makes a new secret.`,
      );
    if ((found.mode & 0o777) !== 0o600) chmodSync(file, 0o600);
    if (found.size > 0) return readSecret(file, 'The data folder');
  }
  const secret = prefix + randomBytes(32).toString('base64url');
  writeSecret(file, `${secret}\n`);
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

function firstBytes(file: string, max: number): Buffer {
  const bytes = Buffer.alloc(max);
  const fd = openSync(file, 'r');
  try {
    let size = 0;
    for (let read = -1; read !== 0 && size < max; size += read) read = readSync(fd, bytes, size, max - size, null);
    return bytes.subarray(0, size);
  } finally {
    closeSync(fd);
  }
}
