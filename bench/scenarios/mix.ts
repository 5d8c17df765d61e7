/**
 * Batches with a given mix of event types: what kind of customer sends them.
 */
import { create } from '@bufbuild/protobuf';
import { type Event, type EventBatch, EventBatchSchema, EventType } from '#gen/sluice/event/v1/event_pb.js';
import { makeBatch, makeEvent, type Random } from '../../lib/testing/batches.js';
import { type Prepared, prepare } from '../payload.js';

/** Shares of event types; they need not add up to 100. */
export interface Mix {
  readonly install: number;
  readonly click: number;
  readonly impression: number;
  readonly conversion: number;
}

const types = [
  ['install', EventType.INSTALL],
  ['click', EventType.CLICK],
  ['impression', EventType.IMPRESSION],
  ['conversion', EventType.CONVERSION],
] as const;

/** Gives types one after the other so that each share is kept as exactly as whole events can, from the first on. */
export function typesInTurn(mix: Mix): () => EventType {
  const sum = types.reduce((total, [name]) => total + mix[name], 0);
  const owed = types.map(() => 0);
  return () => {
    let most = 0;
    for (const [i, [name]] of types.entries()) {
      owed[i]! += mix[name] / sum;
      if (owed[i]! > owed[most]!) most = i;
    }
    owed[most]! -= 1;
    return types[most]![1];
  };
}

/** A realistic event of a type: makeEvent draws all of these types, so it is asked until it does. */
function eventOf(type: EventType, random: Random, index: number): Event {
  for (;;) {
    const event = makeEvent(random, index);
    if (event.type === type) return event;
  }
}

/** Messages to send in turn: together they hold the mix. */
export function prepareMessages(options: {
  readonly count: number;
  /** Events of each. */
  readonly events: number;
  readonly mix: Mix | undefined;
  readonly seed: number;
}): Prepared[] {
  const { count, events, mix, seed } = options;
  const next = mix === undefined ? undefined : typesInTurn(mix);
  const batch = (random: Random): EventBatch =>
    next === undefined
      ? makeBatch(random, events)
      : create(EventBatchSchema, { events: Array.from({ length: events }, (_, i) => eventOf(next(), random, i)) });
  return Array.from({ length: count }, (_, i) =>
    prepare({ target: 'gateway', events, seed: seed * 1000 + i, tenant: '', batch }),
  );
}
