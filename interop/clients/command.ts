/** Runs a command to its end. */
import { spawn } from 'node:child_process';

export interface CommandAnswer {
  /** Exit code, or the signal that ended it. */
  readonly code: number | string;
  readonly out: string;
  readonly err: string;
}

const withinMsByDefault = 60_000;

/** Never rejects for an exit code. @throws Error when the program cannot be started */
export function runCommand(
  program: string,
  args: readonly string[],
  input: string | Buffer = '',
  withinMs = withinMsByDefault,
): Promise<CommandAnswer> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args);
    let [out, err] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      err += chunk.toString();
    });
    const killer = setTimeout(() => child.kill('SIGKILL'), withinMs);
    child.once('error', (error) => {
      clearTimeout(killer);
      reject(error);
    });
    child.once('close', (code, signal) => {
      clearTimeout(killer);
      resolve({ code: signal ?? code ?? '', out, err });
    });
    // A server may answer before it has read all, and the program end then.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}
