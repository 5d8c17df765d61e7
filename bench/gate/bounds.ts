/**
 * What the performance gate compares: ratios inside one run with recorded ones. Never absolute times, so that a slower machine, or
 * one that is busy with something else, changes both sides of a ratio. Pure.
 */

/** One recorded ratio. Both are "our work per CPU second, to that of something else": more is better. */
export interface Recorded {
  /** What is divided by what. */
  readonly what: string;
  readonly recorded: number;
  /** How far below the recorded one it may fall, as a share of it: above what machines scatter, below what doubling a cost makes. */
  readonly margin: number;
}

export type RatioName = 'scan_to_json_parse' | 'ceiling_cpu_to_gateway_cpu';

export type Recording = Readonly<Record<RatioName, Recorded>>;

export type Measured = Readonly<Record<RatioName, number>>;

export const ratioNames: readonly RatioName[] = ['scan_to_json_parse', 'ceiling_cpu_to_gateway_cpu'];

/** @throws Error when the recording is not one, or allows so much that it would hold nothing */
export function readRecording(text: string): Recording {
  const given = JSON.parse(text) as Partial<Record<RatioName, Partial<Recorded>>>;
  for (const name of ratioNames) {
    const { recorded, margin } = given[name] ?? {};
    if (!(typeof recorded === 'number' && recorded > 0 && Number.isFinite(recorded))) {
      throw new Error(`the recording has no "${name}": write it again with \`npm run bench -- gate --record\``);
    }
    if (!(typeof margin === 'number' && margin > 0 && margin < 0.5)) {
      throw new Error(`the margin of "${name}" is not above 0 and below 0.5: half the speed must not pass`);
    }
  }
  return given as Recording;
}

export const minOf = (one: Recorded): number => one.recorded * (1 - one.margin);

export interface Finding {
  readonly name: RatioName;
  readonly measured: number;
  readonly recorded: number;
  readonly least: number;
  readonly passed: boolean;
}

/** A ratio that was not measured (NaN) does not pass. */
export function compare(recording: Recording, measured: Measured): Finding[] {
  return ratioNames.map((name) => {
    const least = minOf(recording[name]);
    const value = measured[name];
    return { name, measured: value, recorded: recording[name].recorded, least, passed: value >= least };
  });
}

/** The recording with newly measured ratios; names and margins stay. */
export function recordAnew(recording: Recording, measured: Measured): Recording {
  const anew = (name: RatioName): Recorded => ({
    ...recording[name],
    recorded: Number(measured[name].toPrecision(3)),
  });
  return {
    scan_to_json_parse: anew('scan_to_json_parse'),
    ceiling_cpu_to_gateway_cpu: anew('ceiling_cpu_to_gateway_cpu'),
  };
}

export function describe(finding: Finding): string {
  const { name, measured, recorded, least, passed } = finding;
  const figures = `${measured.toFixed(2)}, recorded ${recorded.toFixed(2)}, at least ${least.toFixed(2)}`;
  return `${passed ? 'passed' : 'FAILED'}  ${name.padEnd(28)}${figures}`;
}
