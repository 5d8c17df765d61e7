/**
 * An event as `track` takes it: plain objects, with the field names of the generated code. TypeScript refuses a name that is no field; the encoder
 * does so again when it runs (event-encoder.ts), for callers without types.
 */
import type { Message } from '@bufbuild/protobuf';
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import type { Event } from '../gen/sluice/event/v1/event_pb.js';

/** A field of a message; `undefined` leaves it out. */
type FieldInit<F> = F extends Timestamp
  ? Date | MessageInit<Timestamp>
  : F extends Message
    ? MessageInit<F>
    : F extends Record<string, infer V>
      ? string extends keyof F
        ? Readonly<Record<string, V | undefined>> | ReadonlyMap<string, V | undefined>
        : F
      : F;

type MessageInit<M extends Message> = {
  readonly [P in Exclude<keyof M, '$typeName' | '$unknown'>]?: FieldInit<NonNullable<M[P]>> | undefined;
};

/** All fields are optional but `type`. `eventId` is made, `occurredAt` is now, where they are missing. */
export type EventInit = MessageInit<Event>;
