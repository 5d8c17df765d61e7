/**
 * Full jitter: a random wait between nothing and a ceiling that doubles with each failure in a row. Clients that failed
 * together do not come back together.
 * @param streak failures in a row, from 1
 * @returns ms
 */
export function fullJitter(streak: number, limits: { baseMs: number; capMs: number }, random: () => number): number {
  const ceiling = Math.min(limits.capMs, limits.baseMs * 2 ** Math.min(30, Math.max(0, streak - 1)));
  return random() * ceiling;
}
