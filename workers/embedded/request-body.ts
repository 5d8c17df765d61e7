/** Bodies of requests, within bounds of size and time. */
import type { IncomingMessage } from 'node:http';
import { type Readable, Transform } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { MiB } from '../../lib/units.js';
import { EngineError, stoodStill } from './engine-error.js';
import { received } from './young-garbage.js';

/** Looks that must see nothing, before a body counts as one that stands still. */
const roundsStill = 8;

export interface BodyLimits {
  /** Most bytes, after decompression. */
  readonly limit: number;
  /** A body of which nothing comes for so long fails, ms. */
  readonly standstillMs: number;
}

/**
 * The body, decompressed when it says so, and cut off at the limit. Fails when the client goes away or stands still.
 * @throws EngineError the encoding is not known
 */
export function bodyOf(request: IncomingMessage, { limit, standstillMs }: BodyLimits): Readable {
  let size = 0;
  const bounded = new Transform({
    highWaterMark: MiB,
    transform(chunk: Buffer, _encoding, done) {
      size += chunk.length;
      received(chunk.length);
      done(
        size > limit ? new EngineError(307, `The body is larger than ${limit} bytes. (TOO_MANY_BYTES)`) : null,
        chunk,
      );
    },
  });
  const encoding = request.headers['content-encoding'] ?? 'identity';
  if (encoding !== 'gzip' && encoding !== 'identity') {
    throw new EngineError(89, `Bodies are plain or gzip here, not ${encoding}. (UNKNOWN_COMPRESSION_METHOD)`);
  }
  const source: Readable = encoding === 'gzip' ? request.pipe(createGunzip()) : request;
  source.on('error', (error) =>
    bounded.destroy(
      source === request
        ? error
        : new EngineError(354, `The body is not gzip, or cut short: ${error.message} (ZLIB_INFLATE_FAILED)`),
    ),
  );
  request.on('aborted', () => bounded.destroy(new EngineError(210, 'The client went away. (NETWORK_ERROR)')));
  endWhenStill(request, bounded, standstillMs);
  return source.pipe(bounded);
}

/** Counts rounds, not time: a server that was frozen itself first reads what has come meanwhile. */
function endWhenStill(request: IncomingMessage, body: Transform, standstillMs: number): void {
  let rounds = 0;
  request.on('data', () => {
    rounds = 0;
  });
  const round = setInterval(() => {
    // It waits for us: its disk is slow.
    if (body.writableNeedDrain) rounds = 0;
    else if (++rounds > roundsStill) {
      body.destroy(
        new EngineError(stoodStill, `Nothing of the body came for ${standstillMs} ms. It is not run. (SOCKET_TIMEOUT)`),
      );
    }
  }, standstillMs / roundsStill);
  round.unref();
  for (const over of ['close', 'end'] as const) body.once(over, () => clearInterval(round));
}

/** The whole body. */
export async function textOf(request: IncomingMessage, limits: BodyLimits): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of bodyOf(request, limits)) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}
