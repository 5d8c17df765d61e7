/**
 * Whether a folder may become a data folder: a new or an empty one, or one that was.
 */
import { readdirSync } from 'node:fs';

/** One of these is in every data folder. */
const marks = ['nats', 'clickhouse', 'demo-key', 'up.lock'];
/** Left by file systems and version control in folders that are empty otherwise. */
const strays = new Set(['lost+found', '.gitignore', '.gitkeep', '.DS_Store']);

/**
 * @param given as the user has written it
 * @returns why not, and the fix; undefined: it may
 */
export function folderProblem(given: string): string | undefined {
  if (given.startsWith('~')) {
    return `The data folder ${given} begins with "~", which shells leave as it is in quotes and after "=": give --data the whole path.`;
  }
  let names: string[];
  try {
    names = readdirSync(given);
  } catch {
    // Not there yet; or making the folder reports it.
    return undefined;
  }
  const others = names.filter((name) => !strays.has(name));
  if (others.length === 0 || marks.some((mark) => names.includes(mark))) return undefined;
  return `The data folder ${given} holds other things (${others[0]}): give a new or an empty folder by --data.`;
}
