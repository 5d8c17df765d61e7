/** Many worlds at once, for the tests, and what must hold in them. */
import { spawn } from 'node:child_process';
import * as assert from 'uvu/assert';
import { programFlags, programPath } from '../../lib/testing/program.js';

const main = programPath('sim/main.ts');

export interface Totals {
  readonly worlds: number;
  readonly acked: number;
  readonly stored: number;
  readonly duplicates: number;
  readonly dead: number;
  readonly forgotten: number;
  readonly faults: number;
}

/** Worlds in a process of their own, so that two processors share them. */
function worlds(from: number, to: number, ...more: string[]): Promise<Totals> {
  return new Promise((resolve, reject) => {
    const args = [...programFlags, main, '--seeds', `${from}..${to}`, '--json', ...more];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.on('data', (text: Buffer) => {
      output += text.toString();
    });
    child.once('error', reject);
    child.once('exit', (code) => {
      const lines = output.trim().split('\n');
      if (code === 0) resolve(JSON.parse(lines.at(-1) ?? '') as Totals);
      else reject(new Error(`worlds ${from} to ${to} ended with ${code}:\n${lines.slice(0, 20).join('\n')}`));
    });
  });
}

/** Both halves at a time. Rejects when a world has faults, with their seeds. */
async function halves(from: number, to: number, ...more: string[]): Promise<Totals> {
  const middle = Math.floor((from + to) / 2);
  const [a, b] = await Promise.all([worlds(from, middle, ...more), worlds(middle + 1, to, ...more)]);
  return Object.fromEntries(Object.entries(a).map(([key, value]) => [key, value + b[key as keyof Totals]])) as never;
}

/** Worlds in which nothing may be lost or doubled. */
export async function assertWhole(from: number, to: number): Promise<void> {
  const totals = await halves(from, to);
  assert.is(totals.worlds, to - from + 1);
  assert.is(totals.faults, 0);
  // What happened in them must have been worth it.
  assert.ok(totals.acked > 16 * totals.worlds, `${totals.acked} acknowledged`);
  assert.ok(totals.duplicates > 2 * totals.worlds, `${totals.duplicates} duplicates left out`);
  assert.ok(totals.dead > 0.04 * totals.worlds, `${totals.dead} dead`);
  assert.is(totals.forgotten, 0);
}

/** Worlds whose log loses its end, or a stream: only what it forgot may be lost. */
export async function assertBroken(from: number, to: number): Promise<void> {
  const totals = await halves(from, to, '--break-log');
  assert.is(totals.worlds, to - from + 1);
  assert.is(totals.faults, 0);
  assert.ok(totals.forgotten > 0, 'no log forgot what it had acknowledged');
}
