/**
 * The Sluice client for Node, and the generated contract it is built on.
 *
 *   client.ts            SluiceClient: track, ready, flush, close, stats
 *   options.ts           its options and their defaults
 *   batcher.ts           gathers encoded events into batches (pure)
 *   delivery.ts          what is sent when, on which stream, and again (pure; its rules are DELIVER-1 to DELIVER-10); delivery/: its parts
 *   backoff.ts           full jitter
 *   ingest-stream.ts     one PublishStream call over gRPC
 *   http2-connection.ts  the connection of that call; nothing that goes wrong on it reaches the host but by callback
 *   stream-end.ts        why a stream ended: the gateway's own refusal, or that of something between
 *   batch-view.ts        the request with its batch as bytes
 *   event-encoder.ts     events → bytes, from the descriptor; event-init.ts: what an event may be
 *   wire-writer.ts       Protobuf's primitives
 *   uuid-v7.ts           ids
 *   clock.ts             time, injected
 *   errors.ts            what a host hears
 */
export {
  type App,
  AppSchema,
  type Device,
  DeviceSchema,
  type Event,
  type EventBatch,
  EventBatchSchema,
  EventSchema,
  EventType,
  type Page,
  PageSchema,
  Platform,
  type Touch,
  TouchSchema,
} from '../gen/sluice/event/v1/event_pb.js';
export {
  type BatchFailure,
  BatchFailureSchema,
  type BatchResult,
  BatchResultSchema,
  BatchState,
  type Committed,
  CommittedSchema,
  type Draining,
  DrainingSchema,
  Durability,
  type GetBatchStatusRequest,
  GetBatchStatusRequestSchema,
  type GetBatchStatusResponse,
  GetBatchStatusResponseSchema,
  type GetLimitsRequest,
  GetLimitsRequestSchema,
  type GetLimitsResponse,
  GetLimitsResponseSchema,
  IngestService,
  type Limits,
  LimitsSchema,
  type LogPosition,
  LogPositionSchema,
  type PublishRequest,
  PublishRequestSchema,
  type PublishResponse,
  PublishResponseSchema,
  type PublishStreamRequest,
  PublishStreamRequestSchema,
  type PublishStreamResponse,
  PublishStreamResponseSchema,
  type Rejection,
  RejectionCode,
  RejectionSchema,
  type StreamOptions,
  StreamOptionsSchema,
} from '../gen/sluice/ingest/v1/ingest_pb.js';
export { type ClientStats, type CloseReport, clientVersion, createClient, SluiceClient } from './client.js';
export type { EventRejection } from './delivery.js';
export { type FailureCode, SluiceClientError } from './errors.js';
export type { EventInit } from './event-init.js';
export type { ClientTls, Rejected, SluiceClientOptions } from './options.js';
