/** What a run has shown, as a table for people and as one line of JSON. */
import { padCells } from '../lib/table.js';
import { MiB } from '../lib/units.js';
import type { Counts } from './attack.js';
import type { PhaseSeen } from './bystanders.js';
import type { Row } from './run.js';

const heads = [
  'attack',
  'sent',
  'answered',
  'refused',
  'MiB sent',
  'RSS before',
  'most',
  '10 s after',
  'loop ms',
  'CPU s',
  'good P50',
  'P99 alone',
  'P99 attacked',
  'errors',
  "others' errors",
  'verdict',
];

const whole = (value: number | null): string =>
  value === null || !Number.isFinite(value) ? '–' : Math.round(value).toLocaleString('en');

const errorsOf = (row: Row, who: keyof PhaseSeen): number =>
  row.figures.during[who].errors + row.figures.after[who].errors;

function cells(row: Row): string[] {
  const { counts, rss, loopMs, cpuSeconds, alone, during } = row.figures;
  return [
    row.attack.name,
    whole(counts.sent),
    whole(counts.answered),
    whole(counts.refused),
    whole(counts.bytesOut / MiB),
    whole(rss.before),
    whole(rss.most),
    whole(rss.after),
    whole(loopMs),
    cpuSeconds.toFixed(1),
    whole(during.good.p50),
    whole(alone.good.p99),
    whole(during.good.p99),
    whole(errorsOf(row, 'good')),
    whole(errorsOf(row, 'other') + errorsOf(row, 'probe')),
    row.broken.length === 0 ? 'held' : 'FAILED',
  ];
}

const statusesOf = ({ statuses }: Counts): string =>
  Object.entries(statuses)
    .map(([status, count]) => `${status}: ${count.toLocaleString('en')}`)
    .join(', ');

/** One line an attack, for while the run goes on. */
export function told(row: Row): string {
  const all = cells(row);
  return heads.map((name, i) => (i === 0 ? all[0] : `${name} ${all[i]}`)).join(', ');
}

export function page(rows: readonly Row[]): string {
  const table = [heads, heads.map((_, i) => (i === 0 || i === heads.length - 1 ? '---' : '---:')), ...rows.map(cells)];
  const isLeft = (column: number): boolean => column === 0 || column === heads.length - 1;
  const failed = rows.filter(({ broken }) => broken.length > 0);
  const answers = rows.filter(({ figures }) => Object.keys(figures.counts.statuses).length > 0);
  return [
    ...padCells(table, isLeft).map((row) => `| ${row.join(' | ')} |`),
    '',
    ...answers.map(({ attack, figures }) => `${attack.name} heard ${statusesOf(figures.counts)}`),
    '',
    ...failed.flatMap(({ attack, broken }) => broken.map((one) => `FAILED ${attack.name}: ${one}`)),
    `${rows.length} attacks, ${rows.length - failed.length} held, ${failed.length} failed`,
  ].join('\n');
}

/** `{"attacks":[…]}` */
export const summary = (rows: readonly Row[]): object => ({
  attacks: rows.map((row) => ({
    name: row.attack.name,
    rss_mib_max: Math.round(row.figures.rss.most),
    loop_ms_max: Math.round(row.figures.loopMs),
    good_p99_ms: row.figures.during.good.p99,
    good_errors: errorsOf(row, 'good'),
    passed: row.broken.length === 0,
  })),
});
