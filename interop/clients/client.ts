/**
 * What a foreign client is to the suite, and how one that is a separate program is run.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { type CaseName, type CaseOutcome, readLine, type Task } from '../cases.js';

/** What a client tells while it runs. */
export interface Listener {
  outcome(outcome: CaseOutcome): void;
  /** It sends now, and goes on for `restartMillis`: end the gateway. */
  started(name: CaseName): void;
}

export interface ForeignClient {
  readonly name: string;
  /** Library and language. */
  readonly about: string;
  /** What it can be asked to do. */
  readonly cases: readonly CaseName[];
  /**
   * Builds what is not built.
   * @throws Missing with a word where a tool is not on this machine
   */
  prepare(cache: string, say: (line: string) => void): Promise<void>;
  /** Runs the cases of a task in turn. @throws Error when it ends before it has answered all */
  run(task: Task, listener: Listener): Promise<void>;
}

const runWithinMs = 240_000;
const maxWords = 4_000;

/** Runs a program that speaks the protocol of {@link Task} and {@link CaseOutcome}. */
export async function runProgram(
  [program, ...words]: readonly [string, ...string[]],
  cwd: string,
  task: Task,
  listener: Listener,
): Promise<void> {
  const child = spawn(program, [...words, JSON.stringify(task)], { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-maxWords);
  });
  const killer = setTimeout(() => child.kill('SIGKILL'), runWithinMs);
  const answered = new Set<CaseName>();
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    const told = readLine(line);
    if (told === undefined) said = `${said}${line}\n`.slice(-maxWords);
    else if ('started' in told) listener.started(told.case);
    else {
      answered.add(told.case);
      listener.outcome(told);
    }
  });
  const ended = await new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, signal) => resolve(String(signal ?? code)));
  });
  clearTimeout(killer);
  const unanswered = task.cases.filter((name) => !answered.has(name));
  if (unanswered.length > 0)
    throw new Error(`ended with ${ended} and did not answer ${unanswered.join(', ')}: ${said.trim().slice(-maxWords)}`);
}
