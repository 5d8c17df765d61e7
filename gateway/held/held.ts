/**
 * The bounds and the memory that all calls of a gateway share.
 */
import type { GatewayConfig } from '../../lib/config/index.js';
import { MiB } from '../../lib/units.js';
import { StreamWindows } from '../listener/stream-windows.js';
import { type CallGate, createCallGate } from './call-gate.js';
import { createInflater, type Inflater } from './inflate.js';
import { createJsonTurns, type JsonTurns } from './json-turns.js';
import { createMessageBuffers, type MessageBuffers } from './message-buffers.js';
import { createUnfinished, type UnfinishedBytes } from './unfinished.js';

export interface Held {
  readonly unfinished: UnfinishedBytes;
  readonly windows: StreamWindows;
  readonly buffers: MessageBuffers;
  readonly gate: CallGate;
  readonly inflater: Inflater;
  readonly jsonTurns: JsonTurns;
}

/** Single calls that are read at the same time: far more than it takes to keep two cores busy. */
const callsAtOnce = 96;
const tenantCallsAtOnce = 24;
/** Of whole calls that need no seat: a quarter of what admission holds for one tenant by default. */
const maxSeatlessBytes = 4 * MiB;
/** Buffers for messages that came in parts, kept for the next ones. */
const maxBufferBytes = 8 * MiB;
/** A call that takes longer does not count any more. */
const slowCallMs = 2_000;

/** @param isFull a whole batch of this tenant waits for room in admission */
export function createHeld(
  config: Pick<GatewayConfig, 'maxUnfinishedBytes' | 'maxTenantUnfinishedBytes'>,
  isFull: (tenant: string) => boolean,
): Held {
  const windows = new StreamWindows({
    maxBytes: config.maxUnfinishedBytes / 4,
    isCrowded: () => unfinished.crowded,
  });
  const unfinished: UnfinishedBytes = createUnfinished({
    beyondNarrow: () => windows.bytes,
    maxBytes: config.maxUnfinishedBytes,
    maxTenantBytes: config.maxTenantUnfinishedBytes,
    isFull,
    random: Math.random,
    everyTick: (callback, ms) => {
      const timer = setInterval(callback, ms).unref();
      return () => clearInterval(timer);
    },
  });
  return {
    unfinished,
    windows,
    buffers: createMessageBuffers(maxBufferBytes),
    gate: createCallGate({
      max: callsAtOnce,
      maxOfTenant: tenantCallsAtOnce,
      holdMs: slowCallMs,
      maxSkippedBytes: maxSeatlessBytes,
    }),
    inflater: createInflater(),
    jsonTurns: createJsonTurns(),
  };
}
