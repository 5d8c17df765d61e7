/**
 * How the commands that look at log and ClickHouse end: `sluice audit`, `where`, `erase`, `shards`.
 */
import { print } from '../../lib/terminal.js';

/** Ends the process with the code of `main`, once what it wrote is out; with 1 and the message when it throws. */
export function endWith(main: Promise<number>): void {
  main.then(
    (code) => process.stdout.write('', () => process.exit(code)),
    (error: unknown) => {
      print(`${error instanceof Error ? error.message : String(error)}\n`, process.stderr);
      process.stderr.write('', () => process.exit(1));
    },
  );
}
