/** Files as streams of text: gzip or not, by their first bytes, with every line bounded. */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { pipeline, type Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { UsageError } from '../../lib/errors.js';

/** @throws UsageError when the file cannot be read */
export async function openInput(file: string): Promise<Readable> {
  const first = Buffer.alloc(2);
  try {
    const handle = await open(file, 'r');
    try {
      if (!(await handle.stat()).isFile()) throw new UsageError(`${file} is not a file.`);
      await handle.read(first, 0, 2, 0);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT') throw new UsageError(`${file} does not exist. Give the path of a file, gzipped or not.`);
    throw new UsageError(`${file} cannot be read (${String(code)}). Check its permissions.`);
  }
  const raw = createReadStream(file);
  if (first[0] !== 0x1f || first[1] !== 0x8b) return raw;
  // An error of either end is seen by who reads the last.
  return pipeline(raw, createGunzip(), () => undefined);
}

/**
 * Lines of a stream, without their ends. One longer than `maxBytes` is given as undefined, and is not kept in memory.
 * Bytes that are no UTF-8 are replaced.
 */
export async function* linesOf(input: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<string | undefined> {
  let parts: Buffer[] = [];
  let held = 0;
  let tooLong = false;
  const take = (): string | undefined => {
    const line = tooLong ? undefined : Buffer.concat(parts).toString('utf8').replace(/\r$/, '');
    parts = [];
    held = 0;
    tooLong = false;
    return line;
  };
  const keep = (part: Buffer): void => {
    held += part.length;
    if (held > maxBytes) {
      tooLong = true;
      parts = [];
    } else parts.push(part);
  };
  for await (const chunk of input) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      keep(chunk.subarray(start, end));
      yield take();
      start = end + 1;
    }
    if (start < chunk.length) keep(chunk.subarray(start));
  }
  if (held > 0) yield take();
}
