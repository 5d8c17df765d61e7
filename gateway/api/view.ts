/**
 * The wire-compatible view: the request messages as the gateway's binary routes read them, with `batch` as bytes.
 *
 * On the wire a message field and a bytes field are the same: tag, length, content. So the view is derived from the
 * contract's own descriptor by changing that one field's type, and connect-node then hands over the client's bytes
 * instead of decoding every event (10 times the cost of all else: docs/facts.md, FACT-2). A legal encoder may split a
 * message field into several parts, which merge by concatenation, hence `repeated`.
 */
import { clone, createFileRegistry, type DescMessage } from '@bufbuild/protobuf';
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
  type Timestamp,
} from '@bufbuild/protobuf/wkt';
import {
  Durability,
  PublishRequestSchema,
  PublishStreamRequestSchema,
  type StreamOptions,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { ReadFindings } from '../../lib/contract/index.js';
import type { SluiceError } from '../../lib/errors.js';
import { heldBuffer } from '../held/held-bytes.js';

/** What a handler needs of a request, whatever encoding it came in. */
export interface BatchMessage {
  /** Encoded EventBatch; empty when the request has none. */
  readonly batch: Uint8Array;
  readonly batchId: string;
  readonly attempt: number;
  readonly sentAt: { readonly seconds: bigint; readonly nanos: number } | undefined;
  /** Of the stream options; undefined when the message carries none. */
  readonly durability: Durability | undefined;
  /** What was found while its events were read from JSON; undefined: nothing, or the request is binary. */
  readonly findings?: ReadFindings | undefined;
  /** Why a message of a stream was refused while it was read; it has no batch then. */
  readonly refusal?: SluiceError | undefined;
  /** To be called when `batch` is needed no more: its memory is used again. */
  readonly release?: (() => void) | undefined;
}

/** A decoded view message: the same fields, but for `batch`. */
interface ViewMessage {
  readonly batch: readonly Uint8Array[];
  readonly batchId: string;
  readonly attempt: number;
  readonly sentAt?: Timestamp;
  readonly options?: StreamOptions;
}

function derive(real: DescMessage): DescMessage {
  const proto = clone(FileDescriptorProtoSchema, real.file.proto);
  const field = proto.messageType
    .find((message) => message.name === real.name)
    ?.field.find((candidate) => candidate.name === 'batch');
  if (field === undefined) throw new Error(`${real.typeName} has no field "batch"`);
  field.type = FieldDescriptorProto_Type.BYTES;
  field.label = FieldDescriptorProto_Label.REPEATED;
  field.typeName = '';
  const imports = new Map(real.file.dependencies.map((file) => [file.proto.name, file]));
  const view = createFileRegistry(proto, (name) => imports.get(name)).getMessage(real.typeName);
  if (view === undefined) throw new Error(`no view of ${real.typeName}`);
  return view;
}

/** PublishRequest with `repeated bytes batch = 1`. */
export const publishRequestView: DescMessage = derive(PublishRequestSchema);
/** PublishStreamRequest with `repeated bytes batch = 1`. */
export const publishStreamRequestView: DescMessage = derive(PublishStreamRequestSchema);

const noBytes = new Uint8Array(0);

/** Parts of one message field merge by concatenation. One part, the rule, is not copied. */
function join(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0] as Uint8Array;
  if (parts.length === 0) return noBytes;
  const joined = heldBuffer(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** Undefined: no options. */
export const durabilityOf = (options: StreamOptions | undefined): Durability | undefined =>
  options === undefined ? undefined : (options.durability ?? Durability.UNSPECIFIED);

/** From a message that was decoded by one of the views. */
export function fromView(message: unknown): BatchMessage {
  const { batch, batchId, attempt, sentAt, options } = message as ViewMessage;
  return { batch: join(batch), batchId, attempt, sentAt, durability: durabilityOf(options) };
}
