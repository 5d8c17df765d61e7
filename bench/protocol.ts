/**
 * What the benchmark and its load processes say to each other, over Node's IPC.
 */
import type { Counts } from './generator.js';
import type { End } from './load-child.js';

export type LoadTarget =
  | {
      readonly kind: 'gateway';
      readonly url: string;
      readonly key: string;
      readonly connections: number;
      readonly streams: number;
    }
  /** A peer that takes JSON over HTTP/1.1; a connection for each batch in flight. */
  | { readonly kind: 'json'; readonly url: string; readonly key: string }
  /** A peer that takes OTLP: gRPC's unary Export of logs. */
  | { readonly kind: 'otlp'; readonly url: string; readonly key: string; readonly connections: number }
  | { readonly kind: 'log'; readonly natsUrl: string; readonly shards: number; readonly subjectRoot: string };

export interface LoadSettings {
  readonly target: LoadTarget;
  readonly tenant: string;
  /** Events of a batch. */
  readonly batch: number;
  /** Most batches in flight. */
  readonly inFlight: number;
  /** Spreads occurred_at over so many days. */
  readonly spreadDays?: number;
  /** Load processes have different seeds. */
  readonly seed: number;
}

export type ToLoad =
  | { readonly type: 'configure'; readonly settings: LoadSettings }
  /** Sends from now on: events per second, or as fast as acks allow. */
  | { readonly type: 'begin'; readonly rate: number | 'max' }
  /** The measured window starts. */
  | { readonly type: 'mark' }
  /** The window ends and nothing new is sent; `result` follows when all is acknowledged, or after `patienceMs`. */
  | { readonly type: 'stop'; readonly patienceMs: number }
  | End;

export interface LoadResult {
  readonly type: 'result';
  /** Length of the window, ms. */
  readonly ms: number;
  readonly counts: Counts;
  readonly total: Counts;
  /** Batches without an ack after the patience. */
  readonly inFlight: number;
  /** Packed histograms. */
  readonly ack: string;
  readonly lag: string;
  readonly lastReason: string | undefined;
}

export type FromLoad =
  | { readonly type: 'ready'; readonly bytesPerEvent: number }
  | { readonly type: 'progress'; readonly acked: number; readonly resends: number }
  | LoadResult;
