/**
 * How a gateway asks a worker what became of a batch: JSON by NATS request and reply. Whichever worker is free answers.
 */
import { tenantIdPattern } from './subjects.js';

/** What a batch_id may be. */
export const batchIdPattern = /^[A-Za-z0-9._:/-]{1,64}$/;

export interface BatchQuestion {
  readonly tenant: string;
  readonly batchId: string;
}

export interface BatchAnswer {
  readonly state: 'not stored' | 'stored' | 'dead-lettered';
  /** Events in ClickHouse, and in the dead letters. */
  readonly stored: number;
  readonly dead: number;
  readonly reason: string;
  /** When a gateway took the copy that is stored, ms since 1970. */
  readonly receivedAtMs: number | undefined;
}

/**
 * - `busy`: more questions wait than this worker takes
 * - `unavailable`: it cannot ask ClickHouse now
 */
export type BatchRefusal = 'busy' | 'unavailable';

export const encodeQuestion = (question: BatchQuestion): string => JSON.stringify(question);
export const encodeAnswer = (answer: BatchAnswer | BatchRefusal): string =>
  JSON.stringify(typeof answer === 'string' ? { refused: answer } : answer);

/** Undefined when it is not one: nothing of it goes into a statement then. */
export function decodeQuestion(text: string): BatchQuestion | undefined {
  const { tenant, batchId } = objectFrom(text);
  if (typeof tenant !== 'string' || typeof batchId !== 'string') return undefined;
  return tenantIdPattern.test(tenant) && batchIdPattern.test(batchId) ? { tenant, batchId } : undefined;
}

/** An answer that cannot be read is as good as none. */
export function decodeAnswer(text: string): BatchAnswer | BatchRefusal {
  const { refused, state, stored, dead, reason, receivedAtMs } = objectFrom(text);
  if (refused === 'busy') return refused;
  if (state !== 'not stored' && state !== 'stored' && state !== 'dead-lettered') return 'unavailable';
  return {
    state,
    stored: Number(stored),
    dead: Number(dead),
    reason: String(reason),
    receivedAtMs: typeof receivedAtMs === 'number' ? receivedAtMs : undefined,
  };
}

function objectFrom(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
