/**
 * Latencies: a histogram of microseconds with three significant digits, which can be sent between processes and added.
 */
import { build, decodeFromCompressedBase64, encodeIntoCompressedBase64, type Histogram } from 'hdr-histogram-js';

/** Longer is recorded as this: one hour. */
const longestUs = 3_600_000_000;

export interface Quantiles {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

export type LatencyHistogram = Histogram;

export const newHistogram = (): LatencyHistogram =>
  build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: longestUs,
    numberOfSignificantValueDigits: 3,
    bitBucketSize: 32,
  });

/** @param ms may be fractional; below 0 (clock steps) counts as 0 */
export function record(histogram: LatencyHistogram, ms: number): void {
  histogram.recordValue(Math.min(longestUs, Math.max(0, Math.round(ms * 1000))));
}

/** Milliseconds; NaN when nothing was recorded. */
export function quantiles(histogram: LatencyHistogram): Quantiles {
  const at = (percent: number) =>
    histogram.totalCount === 0 ? Number.NaN : histogram.getValueAtPercentile(percent) / 1000;
  return { p50: at(50), p95: at(95), p99: at(99) };
}

const percentiles = [0, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.9, 99.95, 99.99, 100];

/** [percentile, ms] from the fastest to the slowest, for plots; empty when nothing was recorded. */
export const distribution = (histogram: LatencyHistogram): [number, number][] =>
  histogram.totalCount === 0 ? [] : percentiles.map((at) => [at, histogram.getValueAtPercentile(at) / 1000]);

export const packHistogram = (histogram: LatencyHistogram): string => encodeIntoCompressedBase64(histogram);

/** Adds histograms that other processes packed. */
export function unpackHistograms(packed: readonly string[]): LatencyHistogram {
  const all = newHistogram();
  for (const one of packed) all.add(decodeFromCompressedBase64(one, 32));
  return all;
}
