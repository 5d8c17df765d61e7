/**
 * Events in JSON, by the rules of ProtoJSON and of nothing else, straight to Protobuf.
 *
 *   text.ts     a strict reader of JSON over bytes
 *   names.ts    names of fields and enum values, looked up by their bytes
 *   seen-names.ts names of one object that must not come twice
 *   numbers.ts  numbers with all their digits
 *   plan.ts     what the reader knows of a message, from the contract's tree
 *   event.ts    one event
 *   batch.ts    all events of a request: counting, leaving out, telling; slices.ts pauses while reading
 *   output.ts   Protobuf bytes while they are written
 *   fault.ts    what is wrong with one value
 */
export { type ReadBatch, type ReadFindings, type ReadLimits, readEvent, readEvents } from './batch.js';
export { readTimestamp, readWhole } from './event.js';
export { FieldFault } from './fault.js';
export { NameTable } from './names.js';
export { maxNames, SeenNames } from './seen-names.js';
export { allAtOnce } from './slices.js';
export { JsonText } from './text.js';
