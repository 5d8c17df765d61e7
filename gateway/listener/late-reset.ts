/**
 * Delays the reset that follows an early answer. curl 7.88 (Debian 12) reports a stream error, and no status, when the reset comes
 * right after the answer while it still sends its body. After a short delay, it reads the answer and ends the stream itself.
 *
 *   LATE-1  The reset waits for 100 ms, or until the client has ended or reset the stream. What comes meanwhile is dropped, and counts
 *       as payload of the connection. After 1 MiB of it the stream is not read any more: flow control holds the client back.
 *   LATE-2  It does not wait for gRPC (EARLY-1), nor on a connection with more than 32 open calls, these streams included. When one call more
 *       begins, all resets that wait are sent. So places that a client counts as free are free, unless it begins more than 200
 *       calls in the same moment.
 */
import type { ServerHttp2Stream } from 'node:http2';
import { MiB } from '../../lib/units.js';
import { type ConnectionEntry, connectionKey, type OnConnection } from './connection-entry.js';
import { resetStream } from './reset-stream.js';

const lateMs = 100;
/** Of a connection whose resets may wait. */
export const maxCalls = 32;
const maxDropped = MiB;

const droppedKey = Symbol('dropped');
type LateStream = ServerHttp2Stream & OnConnection & { [droppedKey]?: number };

/** To be called when the answer of a stream is with nghttp2, and its request is not over. */
export function resetLate(stream: LateStream): void {
  if (stream.closed || stream.destroyed) return;
  const entry = stream[connectionKey];
  if (entry === undefined || entry.open > maxCalls || isGrpc(stream)) {
    resetStream(stream);
    return;
  }
  stream[droppedKey] = 0;
  stream.on('data', onDropped);
  entry.lateResets ??= new Set();
  entry.lateResets.add(stream);
  stream.once('close', onClose);
  setTimeout(resetStream, lateMs, stream).unref();
}

/** A call has begun on this connection (LATE-2). */
export function resetLateOnes({ open, lateResets }: Pick<ConnectionEntry, 'open' | 'lateResets'>): void {
  if (lateResets === undefined || lateResets.size === 0 || open <= maxCalls) return;
  for (const stream of lateResets) resetStream(stream);
  lateResets.clear();
}

const isGrpc = ({ sentHeaders }: ServerHttp2Stream): boolean =>
  String(sentHeaders?.['content-type'] ?? '').startsWith('application/grpc');

// Functions that all streams share: `this` says which stream.

function onDropped(this: LateStream, chunk: Buffer): void {
  const dropped = (this[droppedKey] ?? 0) + chunk.length;
  this[droppedKey] = dropped;
  if (dropped >= maxDropped) this.pause();
}

function onClose(this: LateStream): void {
  this[connectionKey]?.lateResets?.delete(this);
}
