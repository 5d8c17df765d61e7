/**
 * Tables for a terminal: columns as wide as their widest cell.
 */

type Rows = readonly (readonly string[])[];

/** The cells, padded. @param isLeft whether a column is aligned to the left; the others are to the right */
export function padCells(rows: Rows, isLeft: (column: number) => boolean): string[][] {
  const widths: number[] = [];
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  return rows.map((row) =>
    row.map((cell, i) => (isLeft(i) ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))),
  );
}

/**
 * One line for each row.
 * @param rows the heads are the first one
 * @param left so many columns are aligned to the left, the others to the right
 */
export const tableLines = (rows: Rows, left = 1): string[] =>
  padCells(rows, (column) => column < left).map((cells) => cells.join('  ').trimEnd());
