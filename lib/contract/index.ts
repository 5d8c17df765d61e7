/**
 * The event contract at run time, all of it derived from the descriptors of sluice.event.v1.
 *
 *   rules.ts     descriptors and field options → a plain tree of messages, fields and rules
 *   compile.ts   the tree → a scanner as JavaScript source, compiled at start; compile-numbers.ts is its part for numbers
 *   fast-scan.ts the tree → WebAssembly that passes over what is surely valid; wasm.ts is the format
 *   wire.ts      varints, lengths, unknown fields, map keys: what the compiled code calls
 *   text.ts      UTF-8 and character sets, in place
 *   faults.ts    what the scanner found → path, code and sentence for the customer
 *   scan.ts      scanBatch: framing, partial acceptance
 *   json/        events in JSON → the same bytes
 *   revision.ts  the short name of the contract
 *   shard.ts     which shard a batch belongs to
 */
export type { Rejection } from './faults.js';
export type { ReadFindings } from './json/index.js';
export { contractRevision } from './revision.js';
export {
  type Column,
  type EnumNode,
  eventRules,
  type FieldNode,
  type Kind,
  type MessageNode,
  type Rules,
  rulesOf,
} from './rules.js';
export { type ScanLimits, type ScanResult, scanAfterReading, scanBatch } from './scan.js';
export { shardOf } from './shard.js';
