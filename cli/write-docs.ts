/**
 * Writes the reference pages that are tables of the code: docs/errors.md and docs/configuration.md (`npm run docs`). A test
 * holds the committed pages to what this makes.
 */
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Code } from '@connectrpc/connect';
import { allOptions, flagOf, type OptionSpec, variableOf } from '../lib/config/index.js';
import { errorTable } from '../lib/errors.js';
import { failpoints } from '../lib/failpoint.js';
import { sizeText } from '../lib/units.js';

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows]
    .map((row) => `| ${row.map((cell) => cell.replace(/\|/g, '\\|')).join(' | ')} |`)
    .join('\n');

export function errorsPage(): string {
  const rows = Object.entries(errorTable).map(([name, { code, http, retryable, fix }]) => [
    `\`${name}\``,
    Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase(),
    String(http),
    retryable ? 'yes' : 'no',
    fix,
  ]);
  return `# Errors

This page lists the errors that Sluice returns, by name. Over gRPC, gRPC-Web and Connect the name is the \`reason\` of a \`google.rpc.ErrorInfo\`
detail. Where a retry can help, \`google.rpc.RetryInfo\` says after how long. The plain HTTP routes answer
\`{"error": {"code": <name>, "message": …, "fix": …}}\` with a \`Retry-After\` header.

On a stream, a batch that is not accepted gets a \`BatchFailure\` with its \`batch_id\`, and the stream continues. So does a JSON message that
is refused, even a text that is no JSON. When its \`batch_id\` cannot be read, the id is empty, and the failure names the message by its
place in the stream.

The stream itself ends when bytes form no message: Protobuf or gzip bytes that cannot be parsed, reserved flags, and a message of more than
\`max_batch_bytes\` + 64 KiB (as JSON: 4 × \`max_batch_bytes\` + 64 KiB), which the gateway does not read. That error names the message by its
place in the stream. The gateway answers everything before it first.

It also ends after 100 faulty batches in a row of which nothing was stored: invalid, empty, malformed, or without one valid event. One good
batch resets the count. The status is \`too_many_refusals\` and names the last refusal. The gateway answers everything that it has read first.

A request may have at most 100 headers, and 16 KiB of their names and values.

A single event that breaks the contract is no error: the answer names it by index, field and code, and the gateway stores the rest.

\`npm run docs\` writes this page from lib/errors.ts.

${table(['name', 'gRPC code', 'HTTP', 'retry?', 'what to do'], rows)}
`;
}

function shown(spec: OptionSpec): string {
  const { default: value, kind } = spec;
  if (Array.isArray(value) || value === '') return 'none';
  if (kind === 'bytes') return sizeText(Number(value));
  return kind === 'ms' ? `${String(value)} ms` : String(value);
}

export function configurationPage(): string {
  const parts = Object.entries(allOptions).map(
    ([command, options]) =>
      `## ${command
        .split(', ')
        .map((name) => `\`sluice ${name}\``)
        .join(', ')}\n\n${table(
        ['flag', 'variable', 'default', 'meaning'],
        Object.entries(options).map(([name, spec]) => [
          `\`${flagOf(name)}\``,
          `\`${variableOf(name)}\``,
          shown(spec),
          spec.choices === undefined ? spec.help : `${spec.help} One of: ${spec.choices.join(', ')}.`,
        ]),
      )}`,
  );
  return `# Configuration

This page lists every setting. You give a setting by flag or by variable; the flag wins, then the variable, then the default. Sizes take \`64MiB\`,
durations \`500ms\`, \`10s\`, \`1h\`. Sluice refuses a \`SLUICE_*\` variable that is not listed: it is a typo. \`npx sluice config\` prints
the same.

\`npm run docs\` writes this page from lib/config.

${parts.join('\n\n')}

## Failpoints

For \`--failpoint\`: places at which a process ends as if the power had failed. \`npm run chaos\` passes through all of them.
\`name@n\` means the n-th passing; \`name@n:freeze\` stops the process there with SIGSTOP, like a paused machine, until SIGCONT.
Those of \`sluice gateway\` begin with \`gateway.\`, those of \`sluice worker\` with \`loader.\`.

${table(
  ['name', 'what is true there'],
  Object.entries(failpoints).map(([name, truth]) => [`\`${name}\``, truth]),
)}
`;
}

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(join(root, 'docs/errors.md'), errorsPage());
  writeFileSync(join(root, 'docs/configuration.md'), configurationPage());
}
