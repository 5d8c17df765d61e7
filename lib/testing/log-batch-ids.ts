/** What the log holds, by the ids of its batches. */
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';

/** Batch ids of the whole log, as it is when each stream is reached, in the order of the streams; events are skipped. */
export async function* logBatchIds(nc: NatsConnection): AsyncGenerator<string> {
  const jsm = await jetstreamManager(nc);
  for await (const { config, state } of jsm.streams.list()) {
    if (!config.name.startsWith('EV_') || state.messages === 0) continue;
    const consumer = await jetstream(nc).consumers.get(config.name);
    // Not by bytes: the client would stand still for 30 s whenever the next message is larger than the rest of what it asked for.
    for await (const message of await consumer.consume({ max_messages: 500 })) {
      yield* batchIdsOf(message.data);
      // More may be coming.
      if (message.info.streamSequence >= state.last_seq) break;
    }
  }
}

/** Of one message of the log. */
function* batchIdsOf(message: Uint8Array): Generator<string> {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const end = reader.uint32() + reader.pos;
    while (reader.pos < end) {
      const [field, wireType] = reader.tag();
      if (field === 3) yield reader.string();
      else reader.skip(wireType, field);
    }
  }
}
