/**
 * Small contracts made on the spot, for tests of what Sluice makes of any contract: message test.Root with the given
 * fields, beside test.Inner {string name = 1 (at most 8 bytes)} and enum test.Sparse {0, 5, -3}.
 */
import { create, createFileRegistry, type DescMessage, type MessageInitShape, setExtension } from '@bufbuild/protobuf';
import {
  type FieldDescriptorProto,
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FieldDescriptorProtoSchema,
  FieldOptionsSchema,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  file_google_protobuf_timestamp,
} from '@bufbuild/protobuf/wkt';
import {
  type FieldRulesSchema,
  field as fieldOption,
  FieldRulesSchema as Rules,
} from '#gen/sluice/rules/v1/rules_pb.js';

export interface FieldExtras {
  readonly rules?: MessageInitShape<typeof FieldRulesSchema>;
  readonly repeated?: boolean;
  /** Declared `optional`. */
  readonly optional?: boolean;
  /** In a oneof. */
  readonly oneof?: boolean;
  /** `map<string, type>`. */
  readonly map?: boolean;
}

type ScalarName = keyof typeof scalarNames;
const scalarNames = {
  TYPE_DOUBLE: FieldDescriptorProto_Type.DOUBLE,
  TYPE_FLOAT: FieldDescriptorProto_Type.FLOAT,
  TYPE_INT64: FieldDescriptorProto_Type.INT64,
  TYPE_UINT64: FieldDescriptorProto_Type.UINT64,
  TYPE_INT32: FieldDescriptorProto_Type.INT32,
  TYPE_FIXED64: FieldDescriptorProto_Type.FIXED64,
  TYPE_FIXED32: FieldDescriptorProto_Type.FIXED32,
  TYPE_BOOL: FieldDescriptorProto_Type.BOOL,
  TYPE_STRING: FieldDescriptorProto_Type.STRING,
  TYPE_BYTES: FieldDescriptorProto_Type.BYTES,
  TYPE_UINT32: FieldDescriptorProto_Type.UINT32,
  TYPE_SFIXED32: FieldDescriptorProto_Type.SFIXED32,
  TYPE_SFIXED64: FieldDescriptorProto_Type.SFIXED64,
  TYPE_SINT32: FieldDescriptorProto_Type.SINT32,
  TYPE_SINT64: FieldDescriptorProto_Type.SINT64,
} as const;

export interface FieldSpec {
  readonly name: string;
  readonly number: number;
  readonly type: ScalarName | '.test.Inner' | '.test.Sparse' | '.test.Root' | '.google.protobuf.Timestamp';
  readonly extras: FieldExtras;
}

export function field(name: string, number: number, type: FieldSpec['type'], extras: FieldExtras = {}): FieldSpec {
  return { name, number, type, extras };
}

/** The descriptor of test.Root with these fields. */
export function contractOf(...fields: readonly FieldSpec[]): DescMessage {
  const oneofs: { name: string }[] = [];
  const entries: { name: string; field: FieldDescriptorProto[]; options: { mapEntry: true } }[] = [];
  const protos = fields.map((spec) => {
    const proto = typed(spec);
    const { optional, oneof, map, repeated, rules } = spec.extras;
    if (optional || oneof) {
      proto.oneofIndex = oneofs.push({ name: optional ? `_${spec.name}` : 'choice' }) - 1;
      proto.proto3Optional = optional ?? false;
    }
    if (repeated) proto.label = FieldDescriptorProto_Label.REPEATED;
    if (map) {
      const value = typed({ ...spec, name: 'value', number: 2 });
      const name = `${spec.name[0]?.toUpperCase()}${spec.name.slice(1)}Entry`;
      entries.push({ name, field: [typed(field('key', 1, 'TYPE_STRING')), value], options: { mapEntry: true } });
      proto.type = FieldDescriptorProto_Type.MESSAGE;
      proto.typeName = `.test.Root.${name}`;
      proto.label = FieldDescriptorProto_Label.REPEATED;
    }
    if (rules !== undefined) proto.options = withRules(rules);
    return proto;
  });
  const inner = typed(field('name', 1, 'TYPE_STRING'));
  inner.options = withRules({ maxBytes: 8 });
  const file: FileDescriptorProto = create(FileDescriptorProtoSchema, {
    name: 'test.proto',
    package: 'test',
    syntax: 'proto3',
    dependency: ['google/protobuf/timestamp.proto'],
    messageType: [
      { name: 'Root', field: protos, oneofDecl: oneofs, nestedType: entries },
      { name: 'Inner', field: [inner] },
    ],
    enumType: [
      {
        name: 'Sparse',
        value: [
          { name: 'ZERO', number: 0 },
          { name: 'FIVE', number: 5 },
          { name: 'MINUS', number: -3 },
        ],
      },
    ],
  });
  const registry = createFileRegistry(file, (name) =>
    name === 'google/protobuf/timestamp.proto' ? file_google_protobuf_timestamp : undefined,
  );
  const root = registry.getMessage('test.Root');
  if (root === undefined) throw new Error('test.Root is missing');
  return root;
}

function typed({ name, number, type }: Pick<FieldSpec, 'name' | 'number' | 'type'>): FieldDescriptorProto {
  const proto = create(FieldDescriptorProtoSchema, {
    name,
    number,
    // protoc fills it in.
    jsonName: name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()),
    label: FieldDescriptorProto_Label.OPTIONAL,
  });
  if (type.startsWith('.')) {
    proto.typeName = type;
    proto.type = type === '.test.Sparse' ? FieldDescriptorProto_Type.ENUM : FieldDescriptorProto_Type.MESSAGE;
  } else {
    proto.type = scalarNames[type as ScalarName];
  }
  return proto;
}

function withRules(rules: MessageInitShape<typeof FieldRulesSchema>) {
  const options = create(FieldOptionsSchema);
  setExtension(options, fieldOption, create(Rules, rules));
  return options;
}
