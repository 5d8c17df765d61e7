/** What a run has shown, as a table for people. */
import { tableLines } from '../lib/table.js';
import { type CaseName, caseNames } from './cases.js';
import type { ClientResult, RunResult } from './run.js';

const maxChars = 400;

function cell({ client, faults }: ClientResult, name: CaseName): string {
  if (!client.cases.includes(name) || !faults.has(name)) return '–';
  return faults.get(name) === undefined ? 'ok' : 'FAULT';
}

/** One line for each fault; what all cases have in common, such as a client that cannot be built, is one line. */
function faultsOf({ client, faults }: ClientResult): string[] {
  const names = new Map<string, CaseName[]>();
  for (const [name, fault] of faults) if (fault !== undefined) names.set(fault, [...(names.get(fault) ?? []), name]);
  return [...names].map(([fault, of]) => `FAULT ${client.name} ${of.join(', ')}: ${fault.slice(0, maxChars)}`);
}

export const isClean = ({ clients, audit }: RunResult): boolean =>
  audit.ok && clients.every((client) => faultsOf(client).length === 0);

export function page(result: RunResult): string {
  const ran = result.clients.filter(({ skipped }) => skipped === undefined);
  const left = result.clients.flatMap(({ client, skipped }) =>
    skipped === undefined ? [] : [`skipped ${client.name}: ${skipped.slice(0, maxChars)}`],
  );
  const accepted = ran.flatMap(({ outcomes }) => outcomes).reduce((sum, outcome) => sum + outcome.accepted, 0);
  const names = caseNames.filter((name) => ran.some(({ faults }) => faults.has(name)));
  return [
    ...(ran.length === 0
      ? []
      : [
          ...tableLines(
            [['client', ...names], ...ran.map((one) => [one.client.name, ...names.map((name) => cell(one, name))])],
            1 + names.length,
          ),
          '',
        ]),
    ...left,
    ...ran.flatMap(faultsOf),
    `${ran.length} clients ran, ${left.length} were skipped; ${accepted.toLocaleString('en')} events were accepted.`,
    `audit: ${result.audit.text.split('\n').at(-1)}`,
  ].join('\n');
}
