/**
 * The numbers (`err_code`) of the JetStream errors that Sluice tells apart. Their names follow nats-server's own list.
 */
import { JetStreamApiError } from '@nats-io/jetstream';

export const jetStreamErrors = {
  /** The account's limits leave no room. */
  accountResourcesExceeded: 10002,
  insufficientResources: 10023,
  memoryResourcesExceeded: 10028,
  noMessageFound: 10037,
  storageResourcesExceeded: 10047,
  /** A stream of this name exists with other settings. */
  streamNameInUse: 10058,
  streamNotFound: 10059,
  /** Another writer was faster. */
  wrongLastSequence: 10071,
  /** No room in the stream when the description speaks of a maximum, otherwise a fault of the disk. */
  streamStoreFailed: 10077,
} as const;

export type JetStreamErrorName = keyof typeof jetStreamErrors;

/** Whether JetStream answered with one of these errors. */
export const isJetStreamError = (error: unknown, ...names: readonly JetStreamErrorName[]): boolean =>
  error instanceof JetStreamApiError && names.some((name) => jetStreamErrors[name] === error.code);

/** There is no such stream. */
export const isStreamMissing = (error: unknown): boolean => isJetStreamError(error, 'streamNotFound');
