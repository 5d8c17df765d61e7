/**
 * What the reader of events knows of a message: the contract's tree (../rules.ts), with names in both spellings of the JSON mapping,
 * encoded tags and numbers of fields.
 */
import type { FieldNode, MessageNode } from '../rules.js';
import { NameTable } from './names.js';

export interface MessagePlan {
  /** Of this message at this place in the event. */
  readonly id: number;
  readonly node: MessageNode;
  readonly names: NameTable<FieldPlan>;
  /** A google.protobuf.Timestamp, which is a string in JSON. */
  readonly isTimestamp: boolean;
}

export interface FieldPlan {
  readonly node: FieldNode;
  /** Its place in the message, from 0. */
  readonly index: number;
  /** The field's tag on the wire. */
  readonly tag: number;
  /** Of a map: the tag of an entry's value. */
  readonly valueTag: number;
  readonly message: MessagePlan | undefined;
  readonly enumNames: NameTable<number> | undefined;
}

let nextId = 0;

export const timestampName = 'google.protobuf.Timestamp';

/** @throws Error when two fields have one name in JSON */
export function planOf(node: MessageNode): MessagePlan {
  const names = new Map<string, FieldPlan>();
  node.fields.forEach((field, index) => {
    const plan = fieldPlan(field, index);
    for (const name of new Set([field.jsonName, field.name])) {
      if (names.has(name)) throw new Error(`${node.typeName}: two fields are called "${name}" in JSON`);
      names.set(name, plan);
    }
  });
  return { id: nextId++, node, names: new NameTable(names), isTimestamp: node.typeName === timestampName };
}

function fieldPlan(node: FieldNode, index: number): FieldPlan {
  return {
    node,
    index,
    tag: node.number * 8 + (node.cardinality === 'map' ? 2 : node.wireType),
    valueTag: 16 + node.wireType,
    message: node.message === undefined ? undefined : planOf(node.message),
    enumNames:
      node.enum === undefined
        ? undefined
        : new NameTable(node.enum.values.map(({ name, number }) => [name, number] as const)),
  };
}
