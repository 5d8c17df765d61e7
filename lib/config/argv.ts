/**
 * The command line of a role: `--max-batch-bytes 2MiB`, `--max-batch-bytes=2MiB`, and a bare `--store-user-agent` for true.
 */
import { UsageError } from '../errors.js';
import { flagOf, type OptionTable } from './options.js';

/**
 * @param argv without node and script
 * @returns values by option name, for `resolveOptions`
 * @throws UsageError that names the unknown flag, the stray word, or the flag without a value
 */
export function parseArgv(argv: readonly string[], table: OptionTable): Record<string, string | true> {
  const names = new Map(Object.keys(table).map((name) => [flagOf(name), name]));
  const values: Record<string, string | true> = {};
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] as string;
    if (!word.startsWith('--')) throw new UsageError(`"${word}" is not a flag; flags look like --port 7070.`);
    const equals = word.indexOf('=');
    const flag = equals < 0 ? word : word.slice(0, equals);
    const name = names.get(flag);
    if (name === undefined)
      throw new UsageError(`${flag} is not a flag here; the flags are ${[...names.keys()].join(' ')}.`);
    const following = argv[i + 1];
    if (equals >= 0) {
      values[name] = word.slice(equals + 1);
    } else if (table[name]?.kind === 'bool' && !['true', 'false'].includes(following ?? '')) {
      values[name] = true;
    } else if (following === undefined || following.startsWith('--')) {
      throw new UsageError(`${flag} needs a value: ${table[name]?.help ?? ''}`);
    } else {
      values[name] = following;
      i++;
    }
  }
  return values;
}
