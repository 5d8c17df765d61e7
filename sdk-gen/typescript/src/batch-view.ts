/**
 * PublishStreamRequest as the client sends it: a view of the same message in which `batch` is bytes. On the wire a
 * message field and a bytes field are the same, so the bytes of a batch are spliced in as they are, at every attempt.
 */
import { clone, createFileRegistry, type DescMessage } from '@bufbuild/protobuf';
import { FieldDescriptorProto_Type, FileDescriptorProtoSchema, type Timestamp } from '@bufbuild/protobuf/wkt';
import { PublishStreamRequestSchema } from '../gen/sluice/ingest/v1/ingest_pb.js';

/** The init of a view message. */
export interface BatchMessageInit {
  /** Encoded EventBatch. */
  readonly batch: Uint8Array;
  readonly batchId: string;
  readonly attempt: number;
  readonly sentAt: Pick<Timestamp, 'seconds' | 'nanos'>;
}

function derive(real: DescMessage): DescMessage {
  const file = clone(FileDescriptorProtoSchema, real.file.proto);
  const field = file.messageType
    .find((message) => message.name === real.name)
    ?.field.find((candidate) => candidate.name === 'batch');
  if (field === undefined) throw new Error(`${real.typeName} has no field "batch"`);
  field.type = FieldDescriptorProto_Type.BYTES;
  field.typeName = '';
  const imports = new Map(real.file.dependencies.map((dependency) => [dependency.proto.name, dependency]));
  const view = createFileRegistry(file, (name) => imports.get(name)).getMessage(real.typeName);
  if (view === undefined) throw new Error(`no view of ${real.typeName}`);
  return view;
}

/** PublishStreamRequest with `bytes batch = 1`. */
export const batchMessageView: DescMessage = derive(PublishStreamRequestSchema);
