/**
 * What a run has shown: a table for people, one line of JSON for programs.
 */
import { tableLines } from '../lib/table.js';
import type { Spread } from './recovery.js';
import { lateMs, type RunResult } from './run.js';

const seconds = (ms: number): string => (ms / 1_000).toFixed(2);

const maxLines = 20;
const maxChars = 600;

/** The first lines, and how many more there are. */
const some = (lines: readonly string[]): string[] =>
  lines.length <= maxLines ? [...lines] : [...lines.slice(0, maxLines), `… and ${lines.length - maxLines} more`];

/** For people. */
export function page(result: RunResult, seed: number): string {
  const { schedule, recoveries } = result;
  const byFault = recoveries.byFault();
  const cells = (spread: Spread | undefined): string[] =>
    spread === undefined ? ['', ''] : [seconds(spread.p50), seconds(spread.max)];
  const faults = [...schedule.counts]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([name, times]) => [name, String(times), ...cells(byFault.get(name))]);
  const roles = [...recoveries.byRole()].map(([role, spread]) => [role, String(spread.n), ...cells(spread)]);
  const n = (count: number): string => count.toLocaleString('en');
  return [
    ...tableLines([['fault', 'times', 'recovery P50 s', 'max s'], ...faults]),
    '',
    ...tableLines([['recovery of', 'times', 'P50 s', 'max s'], ...roles]),
    '',
    `${n(schedule.kills)} kills and ${n(schedule.faults - schedule.kills)} other faults in ${Math.round(result.seconds)} s, seed ${seed}`,
    `acknowledged ${n(result.acked)}, stored ${n(result.stored)}; sent and never answered ${n(result.unknown)}; batches sent again ${n(result.retried)}`,
    `lost ${n(result.lost)}, doubled ${n(result.doubled)}, altered ${n(result.altered)}, foreign ${n(result.foreign)}, ` +
      `faults of the ledger ${n(result.ledger)}, late (over ${lateMs / 1_000} s) ${n(result.late)}`,
    ...(result.poisoned === 0
      ? []
      : [`bad messages put into the log ${n(result.poisoned)}, dead letters missing ${n(result.undead.length)}`]),
    ...result.stories,
    ...result.undead,
    ...some(recoveries.hangs.map((line) => `hang: ${line}`)),
    ...some(schedule.crashes.map((line) => `crash: ${line.slice(0, maxChars)}`)),
    ...(result.undelivered > 0 ? [`${n(result.undelivered)} events were given up by their client at the end`] : []),
    ...(result.stuck === undefined ? [] : [`not at rest: ${result.stuck}`]),
    ...(result.folder === undefined
      ? []
      : [`the data are in ${result.folder}; disks that are mounted there are for you to unmount`]),
  ].join('\n');
}

/** For programs: one object. */
export function summary(result: RunResult, seed: number): Record<string, unknown> {
  const { schedule, recoveries } = result;
  return {
    kills: schedule.kills,
    kills_by_role: Object.fromEntries(schedule.killsByRole),
    faults: Object.fromEntries([...schedule.counts].sort(([a], [b]) => a.localeCompare(b))),
    acked: result.acked,
    stored: result.stored,
    unknown: result.unknown,
    retried_batches: result.retried,
    lost: result.lost,
    doubled: result.doubled,
    altered: result.altered,
    foreign: result.foreign,
    ledger: result.ledger,
    late: result.late,
    poisoned: result.poisoned,
    dead_letters_missing: result.undead.length,
    hangs: recoveries.hangs.length + (result.stuck === undefined ? 0 : 1),
    crashes: schedule.crashes.length,
    undelivered: result.undelivered,
    recovery_ms: Object.fromEntries(recoveries.byRole()),
    recovery_ms_by_fault: Object.fromEntries(recoveries.byFault()),
    seconds: Math.round(result.seconds),
    seed,
  };
}

/** Why the run has failed; undefined: it has not. */
export function verdict(result: RunResult): string | undefined {
  const wrong = [
    result.lost > 0 ? 'events were lost' : '',
    result.doubled > 0 ? 'events were stored twice' : '',
    result.altered > 0 ? 'events were altered' : '',
    result.foreign > 0 ? 'events are stored that no client sent' : '',
    result.ledger > 0 ? 'blocks do not follow one another' : '',
    result.undead.length > 0 ? 'dead letters are missing' : '',
    result.stuck !== undefined || result.recoveries.hangs.length > 0 ? 'something did not recover in time' : '',
    result.undelivered > 0 ? 'clients could not deliver' : '',
    result.acked === 0 ? 'nothing was acknowledged' : '',
  ].filter((one) => one !== '');
  return wrong.length === 0 ? undefined : wrong.join(', ');
}
