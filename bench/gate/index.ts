/**
 * The performance gate: ratios of a short run, compared with the recorded ones in bench/gate.json.
 *
 *   index.ts           measures both, and the command (this file)
 *   bounds.ts          what is compared, and how far a ratio may fall
 *   scan-ratio.ts      the scanner against JSON.parse
 *   gateway-ratio.ts   the gateway against a raw publisher
 *
 * gate.long.test.ts runs it alone on the machine, as part of the long tests.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { median } from '../medians.js';
import { positive } from '../options.js';
import { compare, describe, type Measured, readRecording, recordAnew } from './bounds.js';
import { gatewayRatios } from './gateway-ratio.js';
import { scanRatios } from './scan-ratio.js';

const recordingFile = fileURLToPath(new URL('../gate.json', import.meta.url));

export const recorded = () => readRecording(readFileSync(recordingFile, 'utf8'));

export interface GateRun {
  readonly ratios: Measured;
  /** The ratio of each round. */
  readonly rounds: { readonly scan: readonly number[]; readonly gateway: readonly number[] };
}

/** Takes about 30 s. @param rounds of the gateway; the scanner has more of its short ones */
export async function runGate(rounds: number, progress: (line: string) => void): Promise<GateRun> {
  progress('the scanner against JSON.parse');
  const scan = scanRatios(11);
  const gateway = await gatewayRatios({ rounds, seconds: 1.2, progress });
  return {
    ratios: { scan_to_json_parse: median(scan), ceiling_cpu_to_gateway_cpu: median(gateway) },
    rounds: { scan, gateway },
  };
}

const help = `
  A short run in turns gives two ratios, each the median over its rounds, and compares them with bench/gate.json:
    scan_to_json_parse           events per CPU second that the wire scanner reads, to those that JSON.parse reads
    ceiling_cpu_to_gateway_cpu   CPU an event of a raw publisher + nats-server, to gateway + nats-server; batches of 500
  More is better. A ratio below the recorded one by more than its margin fails (exit code 1). No absolute times: a slow or
  busy machine changes both sides. The tests run the same gate.

Examples:
  npm run bench -- gate
  npm run bench -- gate --record     after a change of performance that is meant: commit bench/gate.json with it`;

interface GateOptions {
  readonly record: boolean;
  readonly json: boolean;
  readonly rounds: number;
}

export const gateCommand = (): Command =>
  new Command('gate')
    .description('ratios of a short run against the recorded ones: what the tests hold performance to')
    .option('--record', 'write what was measured to bench/gate.json', false)
    .option('--json', 'end standard output with one line of JSON', false)
    .option('--rounds <n>', 'rounds of the gateway and the raw publisher', positive(100), 4)
    .addHelpText('after', help)
    .action(async ({ record, json, rounds }: GateOptions) => {
      const recording = recorded();
      const run = await runGate(rounds, (line) => process.stderr.write(`gate: ${line}\n`));
      if (record) {
        writeFileSync(recordingFile, `${JSON.stringify(recordAnew(recording, run.ratios), undefined, 2)}\n`);
        process.stdout.write('bench/gate.json has the new ratios; look at the difference, and commit it.\n');
      }
      const findings = compare(recorded(), run.ratios);
      for (const finding of findings) process.stdout.write(`${describe(finding)}\n`);
      const rounded = (values: readonly number[]) => values.map((value) => Number(value.toFixed(3)));
      if (json) {
        const all = { scan: rounded(run.rounds.scan), gateway: rounded(run.rounds.gateway) };
        process.stdout.write(`${JSON.stringify({ case: 'gate', ratios: run.ratios, findings, rounds: all })}\n`);
      }
      if (findings.some((finding) => !finding.passed)) process.exitCode = 1;
    });
