/**
 * The programs of docs/clients.md: each section's code blocks in turn. A block whose fence names a file (```go main.go) is that file;
 * a block of `sh` is run; others are for people.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './workshop.js';

export type Step =
  | { readonly kind: 'file'; readonly name: string; readonly text: string }
  | { readonly kind: 'sh'; readonly text: string };

/** What stands in the page for what is the reader's own. */
export const placeholders = {
  address: '127.0.0.1:7070',
  eventId: 'first-1',
  batchId: 'batch-1',
  key: 'Bearer KEY',
} as const;

/** @returns the steps by section title */
export function readSnippets(page = readFileSync(join(root, 'docs', 'clients.md'), 'utf8')): Map<string, Step[]> {
  const sections = new Map<string, Step[]>();
  for (const section of page.split(/^## /m).slice(1)) {
    const title = section.slice(0, section.indexOf('\n')).trim();
    const steps: Step[] = [];
    for (const [, language, name, text = ''] of section.matchAll(/^```(\w+)(?: (\S+))?\n([\s\S]*?)^```$/gm)) {
      if (name !== undefined) steps.push({ kind: 'file', name, text });
      else if (language === 'sh') steps.push({ kind: 'sh', text });
    }
    if (steps.length > 0) sections.set(title, steps);
  }
  return sections;
}
