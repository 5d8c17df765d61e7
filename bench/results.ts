/**
 * How every command ends: its lines on the terminal, with --json one line of JSON a case at the very end, with --report
 * a page.
 */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { machine, type Result, toJsonLine } from './report.js';
import { writePage } from './report-page.js';

export interface OutputOptions {
  readonly json: boolean;
  /** File of the HTML page. */
  readonly report: string | undefined;
}

export const addOutputOptions = (command: Command): Command =>
  command
    .option('--json', 'end standard output with one line of JSON for each case', false)
    .option('--report <file>', 'write an HTML page with plots', (file) => resolve(file));

/**
 * Shows results as they come. When a case fails, what the others showed is still told before the error.
 * @param name the command's
 */
export async function showResults(name: string, results: AsyncIterable<Result>, options: OutputOptions): Promise<void> {
  const all: Result[] = [];
  try {
    for await (const result of results) {
      all.push(result);
      process.stdout.write(`${result.lines.join('\n')}\n`);
    }
  } finally {
    if (options.report !== undefined && all.length > 0) {
      const { cpus, model, node } = machine;
      writePage(options.report, {
        title: `Sluice: ${name}`,
        subtitle: `${cpus} × ${model}, Node ${node}, ${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC. All servers and the load share this machine.`,
        sections: all,
      });
      process.stderr.write(`${name}: the page is ${options.report}\n`);
    }
    if (options.json) for (const result of all) process.stdout.write(`${toJsonLine(result.json)}\n`);
  }
}
