/**
 * The contract as protobufjs reads it, from the .proto files.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import protobuf from 'protobufjs';

const require = createRequire(import.meta.url);
const proto = fileURLToPath(new URL('../../proto/', import.meta.url));
const files = ['sluice/rules/v1/rules', 'sluice/event/v1/event', 'sluice/ingest/v1/ingest', 'sluice/log/v1/log'];

/** The contract in protobufjs. 64-bit numbers as numbers: the rules keep them below 2^53, and it is much faster. */
export function loadProto(): protobuf.Root {
  protobuf.util.Long = undefined as never;
  protobuf.configure();
  const root = new protobuf.Root();
  root.addJSON(require('protobufjs/google/protobuf/descriptor.json').nested);
  for (const name of ['timestamp', 'duration']) {
    const known = protobuf.common.get(`google/protobuf/${name}.proto`);
    if (known !== null) root.addJSON(known.nested as never);
  }
  for (const file of files) protobuf.parse(readFileSync(`${proto}${file}.proto`, 'utf8'), root);
  root.resolveAll();
  return root;
}
