/**
 * What a case is, and the options that the cases share.
 */
import type { PhaseOptions } from '../measure.js';
import type { Report } from '../report.js';
import type { RoleName } from '../roles.js';

export interface CaseOptions {
  /** Length of each measured window. */
  readonly seconds: number;
  readonly warmUp: number;
  /** Undefined: a closed-loop phase, then an open-loop one at half of what that showed. */
  readonly rate: number | 'max' | undefined;
  /** Events of a batch. */
  readonly batch: number;
  readonly inFlight: number;
  readonly connections: number;
  readonly streams: number;
  readonly loadProcesses: number;
  readonly gateways: number;
  readonly workers: number;
  readonly shards: number;
  readonly seed: number;
  readonly telemetry: boolean;
  /** Folder for CPU profiles. */
  readonly profile: string | undefined;
  /** Extra flags of roles. */
  readonly flags: Readonly<Partial<Record<RoleName, readonly string[]>>>;
}

export interface BenchCase {
  readonly name: string;
  /** One line for --help. */
  readonly summary: string;
  run(options: CaseOptions, progress: PhaseOptions['progress']): Promise<Report>;
}
