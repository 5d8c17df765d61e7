/** Batches as JSON, for the clients that take a request as text. */

export interface JsonEvent {
  readonly eventId: string;
  readonly type: string;
  readonly occurredAt: string;
  readonly currency?: string;
  readonly properties?: Readonly<Record<string, string>>;
}

/** A request of Publish and PublishStream, without `attempt`: these tools do not count retries. */
export interface JsonRequest {
  readonly batchId: string;
  readonly batch: { readonly events: readonly JsonEvent[] };
}

export const event = (eventId: string, padding = 0): JsonEvent => ({
  eventId,
  type: 'EVENT_TYPE_CLICK',
  occurredAt: new Date().toISOString(),
  properties: { padding: 'x'.repeat(padding) },
});

export const request = (batchId: string, ...events: readonly JsonEvent[]): JsonRequest => ({
  batchId,
  batch: { events },
});

/** Two events. */
export const pair = (id: string, padding = 0): JsonRequest =>
  request(id, event(`${id}-1`, padding), event(`${id}-2`, padding));

/** One good event and one with a currency that the contract refuses. */
export const halfBad = (id: string): JsonRequest =>
  request(id, event(`${id}-1`), { ...event(`${id}-bad`), currency: 'euro' });

/** A batch above the limit of bytes. */
export const oversize = (id: string, bytes: number): JsonRequest =>
  request(id, ...Array.from({ length: Math.ceil(bytes / 4_000) }, (_, i) => event(`${id}-${i}`, 4_000)));

interface JsonResult {
  readonly accepted?: number;
  readonly rejected?: number;
  readonly rejections?: readonly { readonly index?: number; readonly field?: string }[];
}

/** What a BatchResult as JSON says. */
export const told = ({ accepted = 0, rejected = 0, rejections = [] }: JsonResult) => ({
  accepted,
  refused: rejected,
  code: '',
  note: rejections.map(({ index = 0, field = '' }) => `${index} ${field}`).join(' '),
});

/** UNAUTHENTICATED of Unauthenticated, unauthenticated or UNAUTHENTICATED. */
export const statusName = (name: string): string =>
  /^[A-Z_]+$/.test(name) ? name : name.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase();
