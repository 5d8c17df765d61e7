/** What arrived, as text, and whether it is what was sent. Pure. */
import { padCells } from '../../lib/table.js';
import type { RunFigures } from './run-figures.js';

/** What the client was given, counted on the way. */
export interface SentFigures {
  readonly events: number;
  /** By type as the table writes it, e.g. "click". */
  readonly types: ReadonlyMap<string, number>;
  readonly valueMicros: bigint;
}

const count = (value: number): string => value.toLocaleString('en');

/** 74802971584 → 74,802.971584 */
export function formatMicros(micros: bigint): string {
  const sign = micros < 0n ? '-' : '';
  const digits = (micros < 0n ? -micros : micros).toString().padStart(7, '0');
  const whole = BigInt(digits.slice(0, -6)).toLocaleString('en');
  return `${sign}${whole}.${digits.slice(-6)}`;
}

/** The heads, a line below them, and the rows. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const [head = [], ...cells] = padCells([header, ...rows], (column) => column === 0);
  return [head, head.map((cell) => '-'.repeat(cell.length)), ...cells].map((row) => `  ${row.join('  ')}`).join('\n');
}

const totalValue = (figures: RunFigures): bigint =>
  figures.types.reduce((sum, { valueMicros }) => sum + valueMicros, 0n);

/** What differs, one line each; none when the figures are exact. */
export function differences(sent: SentFigures, figures: RunFigures): string[] {
  const lines: string[] = [];
  if (figures.stored !== sent.events) lines.push(`sent ${count(sent.events)} events, stored ${count(figures.stored)}`);
  if (figures.distinct !== figures.stored) {
    lines.push(`stored ${count(figures.stored)} events with ${count(figures.distinct)} distinct ids`);
  }
  const stored = new Map(figures.types.map(({ type, events }) => [type, events]));
  for (const type of new Set([...sent.types.keys(), ...stored.keys()])) {
    const [before, after] = [sent.types.get(type) ?? 0, stored.get(type) ?? 0];
    if (before !== after) lines.push(`sent ${count(before)} of type ${type}, stored ${count(after)}`);
  }
  const value = totalValue(figures);
  if (value !== sent.valueMicros) {
    lines.push(`sent a total value of ${formatMicros(sent.valueMicros)}, stored ${formatMicros(value)}`);
  }
  return lines;
}

export function describe(figures: RunFigures): string {
  const parts = [
    'In ClickHouse, by type:',
    table(
      ['type', 'events', 'distinct ids', 'people', 'value'],
      figures.types.map(({ type, events, distinct, people, valueMicros }) => [
        type,
        count(events),
        count(distinct),
        count(people),
        valueMicros === 0n ? '' : formatMicros(valueMicros),
      ]),
    ),
  ];
  if (figures.channels.length > 0) {
    parts.push(
      '',
      'By channel:',
      table(
        ['channel', 'impressions', 'clicks', 'people'],
        figures.channels.map(({ channel, impressions, clicks, people }) => [
          channel,
          count(impressions),
          count(clicks),
          count(people),
        ]),
      ),
    );
    const of = (type: string): number => figures.types.find((row) => row.type === type)?.events ?? 0;
    parts.push(
      '',
      `${count(of('click') + of('impression'))} touches, ${count(of('conversion'))} conversions, ` +
        `total value ${formatMicros(totalValue(figures))}`,
    );
  }
  return parts.join('\n');
}
