/**
 * `npm run interop`: clients that were not written here against a real stack.
 *
 *   main.ts               this file: the command line, the exit code
 *   run.ts                one run: the stack, the clients in turn, the rows, the audit
 *   cases.ts              what each client must do, and what must come of it
 *   clients/              each client: what it needs, how it is built and run; client.ts is what they have in common
 *   peers/                their sources: Go, Python, Java, Rust, the page for a browser
 *   workshop.ts           where they are built: a folder outside the repository
 *   swallow-answer.ts     a TCP proxy that loses one answer
 *   browser.ts            a page in headless Chromium
 *   snippets.ts           the programs of docs/clients.md
 *   proxies.ts            nginx, HAProxy and Envoy as docs/proxies.md sets them up: for proxies.long.test.ts
 *   stored-rows.ts        what ClickHouse has of a run
 *   report.ts             the table
 */
import { Command, InvalidArgumentError } from 'commander';
import { type CaseName, caseNames, cases } from './cases.js';
import type { ForeignClient } from './clients/client.js';
import { foreignClients } from './clients/index.js';
import { isClean, page } from './report.js';
import { run } from './run.js';
import { defaultCache } from './workshop.js';

/** A word chooses each client whose name or language has it. */
function chosenClients(text: string): ForeignClient[] {
  return text.split(',').flatMap((word) => {
    const wanted = word.trim().toLowerCase();
    const found = foreignClients.filter(({ name, about }) => `${name} ${about}`.toLowerCase().includes(wanted));
    if (wanted === '' || found.length === 0) {
      const names = foreignClients.map(({ name }) => name).join(', ');
      throw new InvalidArgumentError(`"${word}" is no client; the clients are ${names}.`);
    }
    return found;
  });
}

function chosenCases(text: string): CaseName[] {
  return text.split(',').map((word) => {
    const found = caseNames.find((name) => name === word.trim());
    if (found === undefined)
      throw new InvalidArgumentError(`"${word}" is no case; the cases are ${caseNames.join(', ')}.`);
    return found;
  });
}

const program = new Command('npm run interop --')
  .description(
    'Runs clients of other languages and libraries against a real stack (nats-server, ClickHouse, worker, gateway) on free ports,\n' +
      'and compares what they heard with what is stored. A client whose tools are not on this machine is skipped.',
  )
  .option('--only <clients>', 'only these, by name or language: grpc-go,python', chosenClients, [...foreignClients])
  .option('--cases <cases>', 'only these cases', chosenCases, caseNames)
  .option('--cache <folder>', 'where clients are built; it stays', defaultCache)
  .showHelpAfterError('(add --help for the options)')
  .addHelpText(
    'after',
    `
Clients:
${foreignClients.map(({ name, about }) => `  ${name.padEnd(20)} ${about}`).join('\n')}

Cases:
${caseNames.map((name) => `  ${name.padEnd(20)} ${cases[name].about}`).join('\n')}

Exit code 0: each client that ran did all its cases right, each accepted event is one row, and the audit's difference is 0.
`,
  );

const flags = program.parse().opts<{ only: readonly ForeignClient[]; cases: readonly CaseName[]; cache: string }>();
const result = await run({
  clients: [...new Set(flags.only)],
  cases: flags.cases,
  cache: flags.cache,
  say: (line) => process.stderr.write(`${line}\n`),
});
process.stdout.write(`${page(result)}\n`);
process.exitCode = isClean(result) ? 0 : 1;
