/**
 * Inflates gzip bodies and messages, bounded while they inflate.
 *
 *   INFLATE-1  A call inflates to at most 256 KiB and 50 times the bytes that it sent, over all its messages. Events of real sites and
 *       journeys come to 20 times at most (docs/json.md); a bomb comes to 1,000.
 *   INFLATE-2  At most `atOnce` inflate at the same time, and at most `ofOwner` of one owner. zlib works on libuv's four threads, which
 *       file and name look-ups need too.
 *       A request keeps its place until its output is read, so the outputs of all requests are as few.
 *   INFLATE-3  Owners take turns; within one owner, first come, first served. A request whose client has gone away is not inflated.
 */
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { Code, ConnectError } from '@connectrpc/connect';
import type { Compression } from '@connectrpc/connect/protocol';
import { compressionGzip } from '@connectrpc/connect-node';
import { SluiceError } from '../../lib/errors.js';
import { KiB } from '../../lib/units.js';
import { createTurns } from './turns.js';

/** Output that any call may have, however small its input: bytes. */
export const freeOutput = 256 * KiB;
/** Output for each byte of input. */
export const greatestRatio = 50;

/** What a call has sent and what came of it, over all its messages. */
export interface InflateMeter {
  input: number;
  output: number;
}

export const newMeter = (): InflateMeter => ({ input: 0, output: 0 });

export interface InflateRequest {
  /** Whose turn it takes: a tenant. */
  readonly owner: string;
  readonly bytes: Uint8Array;
  /** Most bytes of output. */
  readonly max: number;
  /** Of the call. */
  readonly meter: InflateMeter;
  /** The caller has gone away. */
  readonly signal?: AbortSignal | undefined;
}

export interface Inflater {
  /**
   * What `use` makes of the output.
   * @throws SluiceError inflates_too_far (INFLATE-1), batch_too_large (more than `max`), request_malformed (no gzip)
   */
  inflate<T>(request: InflateRequest, use: (output: Uint8Array<ArrayBuffer>) => T): Promise<Awaited<T>>;
  /** For the RPC library, which does not say whose message it is: all of them have one owner. */
  readonly compression: Compression;
  /** Now. */
  readonly inside: number;
  readonly waiting: number;
  /** Output so far, also of what was refused. */
  readonly bytes: number;
}

export interface InflaterOptions {
  /** @default 3 */
  readonly atOnce?: number;
  /** @default 2 */
  readonly ofOwner?: number;
}

const unzip = promisify(gunzip);
const largestChunk = 64 * KiB;

export function createInflater({ atOnce = 3, ofOwner = 2 }: InflaterOptions = {}): Inflater {
  const turns = createTurns({ max: atOnce, maxOfOwner: ofOwner });
  let bytes = 0;

  const inflate = async <T>(
    request: InflateRequest,
    use: (output: Uint8Array<ArrayBuffer>) => T,
  ): Promise<Awaited<T>> => {
    const { owner, meter, signal } = request;
    await turns.enter(owner);
    const before = meter.output;
    try {
      signal?.throwIfAborted();
      const output = await inflateOne(request);
      return await use(output);
    } finally {
      bytes += meter.output - before;
      turns.leave(owner);
    }
  };

  const compression: Compression = {
    name: compressionGzip.name,
    compress: compressionGzip.compress,
    decompress: (input, max) =>
      input.length === 0
        ? Promise.resolve(new Uint8Array(0))
        : inflate({ owner: '', bytes: input, max, meter: newMeter() }, (output) => output).catch((reason: unknown) => {
            throw forLibrary(reason, max);
          }),
  };

  return {
    inflate,
    compression,
    get inside() {
      return turns.inside;
    },
    get waiting() {
      return turns.waiting;
    },
    get bytes() {
      return bytes;
    },
  };
}

/** zlib checks `maxOutputLength` with each chunk that it has inflated, so no more than a chunk is beyond it. */
async function inflateOne({ bytes, max, meter }: InflateRequest): Promise<Uint8Array<ArrayBuffer>> {
  meter.input += bytes.length;
  const allowed = Math.max(0, freeOutput + greatestRatio * meter.input - meter.output);
  const maxOutputLength = Math.max(1, Math.min(max, allowed));
  const chunkSize = Math.min(largestChunk, Math.max(1024, 4 * bytes.length));
  try {
    const output = await unzip(bytes, { maxOutputLength, chunkSize });
    meter.output += output.length;
    return output;
  } catch (reason) {
    meter.output += maxOutputLength;
    if ((reason as NodeJS.ErrnoException).code !== 'ERR_BUFFER_TOO_LARGE') {
      throw new SluiceError('request_malformed', 'Decompression failed: the bytes are not gzip, or end early.', {
        cause: reason,
      });
    }
    throw max <= allowed ? tooLarge(max) : inflatesTooFar(meter.input);
  }
}

const tooLarge = (max: number): SluiceError =>
  new SluiceError('batch_too_large', `The request inflates to more than ${max} bytes.`);

const inflatesTooFar = (input: number): SluiceError =>
  new SluiceError(
    'inflates_too_far',
    `${input} bytes of gzip inflate to more than ${freeOutput + greatestRatio * input} bytes.`,
  );

/** The library's own words where it has some. */
function forLibrary(reason: unknown, max: number): unknown {
  if (!(reason instanceof SluiceError)) return reason;
  if (reason.code === 'request_malformed') return new ConnectError('decompression failed', Code.InvalidArgument);
  return new ConnectError(
    `message is larger than configured readMaxBytes ${max} after decompression`,
    Code.ResourceExhausted,
  );
}
