/**
 * Events as a plain JSON API takes them: the Protobuf JSON mapping, but for 64-bit numbers, which are written as numbers
 * (the contract keeps them below 2^53). A Protobuf JSON reader takes it as it is.
 */
import { type JsonObject, toJson } from '@bufbuild/protobuf';
import { type Event, EventSchema } from '#gen/sluice/event/v1/event_pb.js';

export function plainJson(event: Event): JsonObject {
  const json = toJson(EventSchema, event) as JsonObject;
  if (json.valueMicros !== undefined) json.valueMicros = Number(json.valueMicros);
  const touch = json.touch as JsonObject | undefined;
  if (touch?.costMicros !== undefined) touch.costMicros = Number(touch.costMicros);
  return json;
}
