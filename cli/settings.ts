/**
 * `sluice config`: every setting of every command.
 */
import { allOptions, flagOf, variableOf } from '../lib/config/index.js';

export function settings(): void {
  for (const [command, table] of Object.entries(allOptions)) {
    process.stdout.write(`\nsluice ${command}\n`);
    for (const [name, { default: value, help }] of Object.entries(table)) {
      process.stdout.write(
        `  ${flagOf(name).padEnd(30)} ${variableOf(name).padEnd(36)} ${String(value) || '-'}\n      ${help}\n`,
      );
    }
  }
}
