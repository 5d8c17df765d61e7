/**
 * A short name for the contract that this build validates against: the same for equal rules, another when any field,
 * rule or column hint changes. It travels with every stored batch.
 */
import { createHash } from 'node:crypto';
import { eventRules, type MessageNode } from './rules.js';

/** 12 hex digits of SHA-256 over the tree, in canonical JSON: keys in order, absent rules left out. */
export function revisionOf(rules: MessageNode): string {
  const canonical = JSON.stringify(rules, (_key, value: unknown) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    // Names in JSON change no stored byte.
    const parts = Object.entries(value).filter(([key]) => key !== 'jsonName');
    return Object.fromEntries(parts.sort(([a], [b]) => (a < b ? -1 : 1)));
  });
  return createHash('sha256').update(canonical).digest('hex').slice(0, 12);
}

export const contractRevision: string = revisionOf(eventRules);
