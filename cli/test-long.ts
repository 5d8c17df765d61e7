/**
 * `sluice test-long` (npm run test:long): what takes too long for every `npm test`, one part after another. Words choose parts, as
 * in `npm run test:long -- tls`.
 */
import type { Entry } from './roles.js';
import { run } from './run.js';

interface Part {
  readonly name: string;
  readonly entry: Entry;
  readonly flags: readonly string[];
  /** About, on two cores. */
  readonly minutes: number;
}

const parts: readonly Part[] = [
  { name: 'tests', entry: 'test', flags: ['--long'], minutes: 8 },
  { name: 'chaos', entry: 'chaos', flags: ['--seed', '1'], minutes: 2 },
  { name: 'interop', entry: 'interop', flags: [], minutes: 5 },
  { name: 'hostile', entry: 'hostile', flags: ['--json'], minutes: 15 },
  { name: 'hostile, TLS', entry: 'hostile', flags: ['--tls', '--json'], minutes: 15 },
  { name: 'fuzz', entry: 'hostile', flags: ['fuzz', '--requests', '1000000', '--seed', '1', '--json'], minutes: 15 },
  { name: 'hostile, two processes', entry: 'hostile', flags: ['--processes', '2', '--json'], minutes: 15 },
];

/** @returns the exit code */
async function main(words: readonly string[]): Promise<number> {
  const chosen = parts.filter(({ name }) =>
    words.every((word) => name.toLowerCase().split(/\W+/).includes(word.toLowerCase())),
  );
  if (chosen.length === 0) {
    process.stdout.write(
      `No part has ${words.join(' and ')} in its name: ${parts.map(({ name }) => name).join('; ')}.\n`,
    );
    return 1;
  }
  const results: string[] = [];
  let failed = false;
  for (const { name, entry, flags, minutes } of chosen) {
    process.stdout.write(`\n${name}, about ${minutes} minutes\n`);
    const code = await run(entry, flags);
    failed ||= code !== 0;
    results.push(`${name}: ${code === 0 ? 'passed' : `FAILED (exit code ${code})`}`);
    // Ctrl-C ends the whole.
    if (code >= 128) break;
  }
  process.stdout.write(`\n${results.join('\n')}\n`);
  return failed ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
