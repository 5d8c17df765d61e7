/**
 * How fast something grows: a straight line through samples, with a confidence interval that knows that neighbouring samples of
 * a process's memory are alike (a garbage collector's saw-tooth is not a trend). Pure.
 */
export interface Sample {
  /** Seconds. */
  readonly at: number;
  readonly value: number;
}

export interface Slope {
  readonly perMinute: number;
  /** The interval that holds the true slope with about 95 %, per minute; infinite with too few samples. */
  readonly low: number;
  readonly high: number;
}

/** Samples are averaged in this many stretches: what goes up and down within one does not count as noise or as trend. */
const stretches = 16;
/** Student's t for 95 %, two-sided, by degrees of freedom from 1. */
const student = [12.71, 4.3, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.2, 2.18, 2.16, 2.14, 2.13, 2.12];

export function slopeOf(samples: readonly Sample[]): Slope {
  const points = averages(samples.filter((sample) => Number.isFinite(sample.value)));
  const n = points.length;
  if (n < 4) return { perMinute: Number.NaN, low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY };
  const mean = (of: (point: Sample) => number) => points.reduce((sum, point) => sum + of(point), 0) / n;
  const [x, y] = [mean((p) => p.at), mean((p) => p.value)];
  const xx = points.reduce((sum, p) => sum + (p.at - x) ** 2, 0);
  const slope = points.reduce((sum, p) => sum + (p.at - x) * (p.value - y), 0) / xx;
  const rest = points.map((p) => p.value - y - slope * (p.at - x));
  const squares = rest.reduce((sum, r) => sum + r * r, 0);
  // Residuals that follow their neighbours tell less than their number says: the effective number is smaller.
  const along = rest.slice(1).reduce((sum, r, i) => sum + r * rest[i]!, 0) / (squares || 1);
  const alike = Math.min(0.8, Math.max(0, along));
  const effective = Math.max(3, (n * (1 - alike)) / (1 + alike));
  const freedom = effective - 2;
  const error = Math.sqrt(squares / freedom / (xx * (effective / n)));
  const half = error * (student[Math.min(student.length, Math.max(1, Math.floor(freedom))) - 1] ?? 2);
  return { perMinute: slope * 60, low: (slope - half) * 60, high: (slope + half) * 60 };
}

function averages(samples: readonly Sample[]): Sample[] {
  const first = samples[0]?.at ?? 0;
  const span = (samples.at(-1)?.at ?? 0) - first;
  if (span <= 0) return [];
  const sums = Array.from({ length: stretches }, () => ({ at: 0, value: 0, n: 0 }));
  for (const sample of samples) {
    const sum = sums[Math.min(stretches - 1, Math.floor(((sample.at - first) / span) * stretches))]!;
    sum.at += sample.at;
    sum.value += sample.value;
    sum.n++;
  }
  return sums.filter((sum) => sum.n > 0).map(({ at, value, n }) => ({ at: at / n, value: value / n }));
}
