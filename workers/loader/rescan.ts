/**
 * The contract of this build, for batches whose gateway knew less of it, and a batch that it surely accepts (DLQ-4 and DLQ-3 in dead-letters.ts).
 */
import { create } from '@bufbuild/protobuf';
import { sizeDelimitedEncode } from '@bufbuild/protobuf/wire';
import { EventType } from '#gen/sluice/event/v1/event_pb.js';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { contractRevision, scanBatch } from '../../lib/contract/index.js';
import { SluiceError } from '../../lib/errors.js';
import type { Contract, ContractVerdict } from './dead-letters.js';

const nothing = new Uint8Array(0);

function judge(events: Uint8Array): ContractVerdict {
  try {
    const { rejected, rejections, bytes } = scanBatch(events, { maxEvents: Number.POSITIVE_INFINITY });
    const [first] = rejections;
    const reason = first === undefined ? '' : `event ${first.index}, ${first.field}: ${first.message}`;
    return { refused: rejected, reason, rest: bytes };
  } catch (error) {
    // Not even a sequence of events: no gateway of ours wrote it, and ClickHouse has the word.
    if (error instanceof SluiceError) return { refused: 0, reason: '', rest: nothing };
    throw error;
  }
}

export const currentContract: Contract = { revision: contractRevision, judge };

const event = { eventId: 'control', type: EventType.CLICK, occurredAt: { seconds: 1_767_225_600n, nanos: 1 } };
export const controlBatch: Uint8Array = sizeDelimitedEncode(
  StoredBatchSchema,
  create(StoredBatchSchema, { tenant: 'control', batchId: 'control', attempt: 1, eventCount: 1, events: [event] }),
);
