/**
 * Inflates gzip bodies and messages, bounded while they inflate.
 *
 *   Z1  A call inflates to at most 256 KiB and 50 times the bytes that it sent, over all its messages. Events of real sites and
 *       journeys come to 20 times at most (docs/json.md); a bomb comes to 1,000.
 *   Z2  At most `atOnce` inflate at the same time, and at most `ofOwner` of one owner. zlib works on libuv's four threads, which
 *       file and name look-ups need too.
 *   Z3  Owners take turns; within one owner, first come, first served. Who has gone away while waiting is not inflated.
 */
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { Code, ConnectError } from '@connectrpc/connect';
import type { Compression } from '@connectrpc/connect/protocol';
import { compressionGzip } from '@connectrpc/connect-node';
import { SluiceError } from '../lib/errors.js';

/** Output that any call may have, however small its input: bytes. */
export const freeOutput = 256 * 1024;
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
  readonly most: number;
  /** Of the call. */
  readonly meter: InflateMeter;
  /** The caller has gone away. */
  readonly signal?: AbortSignal | undefined;
}

export interface Inflater {
  /**
   * @throws SluiceError inflates_too_far (Z1), batch_too_large (more than `most`), request_malformed (no gzip)
   */
  inflate(request: InflateRequest): Promise<Uint8Array<ArrayBuffer>>;
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

interface OwnerState {
  inside: number;
  readonly line: (() => void)[];
}

const unzip = promisify(gunzip);
const largestChunk = 64 * 1024;

export function createInflater({ atOnce = 3, ofOwner = 2 }: InflaterOptions = {}): Inflater {
  /** In the order in which they are served next. */
  const owners = new Map<string, OwnerState>();
  let inside = 0;
  let waiting = 0;
  let bytes = 0;

  const serve = (): void => {
    for (const [owner, state] of owners) {
      if (inside >= atOnce) return;
      if (state.inside >= ofOwner) continue;
      const enter = state.line.shift();
      if (enter === undefined) continue;
      waiting--;
      inside++;
      state.inside++;
      // To the end of the line: a Map visits what is added during the walk, so the walk goes round.
      owners.delete(owner);
      owners.set(owner, state);
      enter();
    }
  };

  const enter = (owner: string): Promise<void> =>
    new Promise((resolve) => {
      const state = owners.get(owner) ?? { inside: 0, line: [] };
      owners.set(owner, state);
      state.line.push(resolve);
      waiting++;
      serve();
    });

  const leave = (owner: string): void => {
    const state = owners.get(owner) as OwnerState;
    inside--;
    state.inside--;
    if (state.inside === 0 && state.line.length === 0) owners.delete(owner);
    serve();
  };

  const inflate = async (request: InflateRequest): Promise<Uint8Array<ArrayBuffer>> => {
    const { owner, meter, signal } = request;
    await enter(owner);
    try {
      signal?.throwIfAborted();
      const before = meter.output;
      const output = await inflateOne(request).finally(() => {
        bytes += meter.output - before;
      });
      return output;
    } finally {
      leave(owner);
    }
  };

  const compression: Compression = {
    name: compressionGzip.name,
    compress: compressionGzip.compress,
    decompress: (input, most) =>
      input.length === 0
        ? Promise.resolve(new Uint8Array(0))
        : inflate({ owner: '', bytes: input, most, meter: newMeter() }).catch((reason: unknown) => {
            throw forLibrary(reason, most);
          }),
  };

  return {
    inflate,
    compression,
    get inside() {
      return inside;
    },
    get waiting() {
      return waiting;
    },
    get bytes() {
      return bytes;
    },
  };
}

/** zlib checks `maxOutputLength` with each chunk that it has inflated, so no more than a chunk is beyond it. */
async function inflateOne({ bytes, most, meter }: InflateRequest): Promise<Uint8Array<ArrayBuffer>> {
  meter.input += bytes.length;
  const allowed = Math.max(0, freeOutput + greatestRatio * meter.input - meter.output);
  const maxOutputLength = Math.max(1, Math.min(most, allowed));
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
    throw most <= allowed ? tooLarge(most) : inflatesTooFar(meter.input);
  }
}

const tooLarge = (most: number): SluiceError =>
  new SluiceError('batch_too_large', `The request inflates to more than ${most} bytes.`);

const inflatesTooFar = (input: number): SluiceError =>
  new SluiceError(
    'inflates_too_far',
    `${input} bytes of gzip inflate to more than ${freeOutput + greatestRatio * input} bytes.`,
  );

/** The library's own words where it has some. */
function forLibrary(reason: unknown, most: number): unknown {
  if (!(reason instanceof SluiceError)) return reason;
  if (reason.code === 'request_malformed') return new ConnectError('decompression failed', Code.InvalidArgument);
  return new ConnectError(
    `message is larger than configured readMaxBytes ${most} after decompression`,
    Code.ResourceExhausted,
  );
}
