/**
 * How far ClickHouse is behind: the age of the oldest acknowledged event that it does not have. Pure.
 */
export interface LagMeter {
  /** So many events were acknowledged by then, in all. */
  acked(at: number, total: number): void;
  /** So many are stored now: seconds since as many had been acknowledged; 0 when it has all. */
  lag(at: number, stored: number): number;
}

/** Points of the curve that are kept: at four a second, seventeen minutes. A longer lag counts from the oldest of them. */
const maxPoints = 4_096;

export function createLagMeter(): LagMeter {
  let points: { at: number; total: number }[] = [{ at: 0, total: 0 }];
  return {
    acked(at, total) {
      points.push({ at, total });
      if (points.length > 2 * maxPoints) points = points.slice(-maxPoints);
    },
    lag(at, stored) {
      const last = points.at(-1)!;
      if (stored >= last.total) return 0;
      // The first point above is where the oldest missing event was acknowledged, at the latest; the one before, at the earliest.
      let [low, high] = [0, points.length - 1];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (points[middle]!.total > stored) high = middle;
        else low = middle + 1;
      }
      const after = points[low]!;
      const before = points[low - 1] ?? after;
      const share = after.total === before.total ? 1 : (stored - before.total) / (after.total - before.total);
      return Math.max(0, at - (before.at + Math.max(0, share) * (after.at - before.at)));
    },
  };
}
