/**
 * Whether a port can be had, and who has it.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createServer } from 'node:net';

/** Undefined when the port is free; else why not, and the fix. `flag` is the one that sets the port. */
export function portProblem(host: string, port: number, flag: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') {
        const holder = holderOf(port);
        return resolve(
          `is taken${holder === undefined ? '' : ` by ${holder}`}: end that, or set ${flag} to another port.`,
        );
      }
      if (error.code === 'EACCES') return resolve(`is not allowed to this user: set ${flag} to one above 1023.`);
      resolve(
        `cannot be had at "${host}" (${error.message}): set --host to an address of this machine, such as 127.0.0.1, ::1 or 0.0.0.0.`,
      );
    });
    server.listen(port, host, () => server.close(() => resolve(undefined)));
  });
}

/** Name and pid of the process that listens on a port, on Linux, if it is ours to see. */
function holderOf(port: number): string | undefined {
  try {
    const hex = port.toString(16).toUpperCase().padStart(4, '0');
    const inodes = new Set<string>();
    for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
      for (const line of readFileSync(table, 'utf8').split('\n').slice(1)) {
        const columns = line.trim().split(/\s+/);
        // 0A: listening.
        if (columns[1]?.endsWith(`:${hex}`) === true && columns[3] === '0A' && columns[9] !== undefined)
          inodes.add(columns[9]);
      }
    }
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      try {
        for (const fd of readdirSync(`/proc/${pid}/fd`)) {
          const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
          if (inode !== undefined && inodes.has(inode)) {
            return `${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()} (process ${pid})`;
          }
        }
      } catch {
        // Another user's process, or gone.
      }
    }
  } catch {
    // No /proc.
  }
  return undefined;
}
