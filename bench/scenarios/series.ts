/**
 * Samples over time in bounded memory: when there are too many, neighbours become one, so that a day is kept as well as a minute.
 * Pure.
 */
export interface Series<T> {
  push(point: T): void;
  /** In order. */
  readonly points: readonly T[];
}

/** @param merge makes one point of two neighbours */
export function boundedSeries<T>(most: number, merge: (a: T, b: T) => T): Series<T> {
  let points: T[] = [];
  /** How many pushes make a point by now. */
  let each = 1;
  let held: T | undefined;
  let heldCount = 0;
  return {
    push(point) {
      held = held === undefined ? point : merge(held, point);
      if (++heldCount < each) return;
      points.push(held);
      held = undefined;
      heldCount = 0;
      if (points.length < most) return;
      const halved: T[] = [];
      for (let i = 0; i + 1 < points.length; i += 2) halved.push(merge(points[i]!, points[i + 1]!));
      points = halved;
      each *= 2;
    },
    get points() {
      return points;
    },
  };
}
