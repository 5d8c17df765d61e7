/** The rules of a field, from its `(sluice.rules.v1.field)` option: for tests that hold lib/contract to the descriptor. */
import { type DescField, getOption } from '@bufbuild/protobuf';
import { type FieldRules, field as fieldOption } from '#gen/sluice/rules/v1/rules_pb.js';

// getOption decodes the option at each call.
const known = new Map<DescField, FieldRules>();

/** @returns all zeros for a field without rules */
export function fieldRules(field: DescField): FieldRules {
  let rules = known.get(field);
  if (rules === undefined) {
    rules = getOption(field, fieldOption);
    known.set(field, rules);
  }
  return rules;
}
