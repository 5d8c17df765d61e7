/** Of ten thousand worlds none may lose or double an event. A failure prints the seed, and how to look at it. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { runWorld } from './run.js';

// Errors are thrown by the thousand here; their stacks would cost more than the rest.
Error.stackTraceLimit = 0;

const main = fileURLToPath(new URL('./main.ts', import.meta.url));

interface Totals {
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
    const args = ['--import', 'tsx', main, '--seeds', `${from}..${to}`, '--json', ...more];
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

/** Two halves at a time. */
async function halves(from: number, to: number, ...more: string[]): Promise<Totals> {
  const middle = Math.floor((from + to) / 2);
  const [a, b] = await Promise.all([worlds(from, middle, ...more), worlds(middle + 1, to, ...more)]);
  return Object.fromEntries(Object.entries(a).map(([key, value]) => [key, value + b[key as keyof Totals]])) as never;
}

test('ten thousand worlds: all that was acknowledged is stored once, and every world comes to rest', async () => {
  const totals = await halves(1, 10_000);
  assert.is(totals.worlds, 10_000);
  assert.is(totals.faults, 0);
  // What happened in them must have been worth it.
  assert.ok(totals.acked > 150_000, `${totals.acked} acknowledged`);
  assert.ok(totals.duplicates > 20_000, `${totals.duplicates} duplicates left out`);
  assert.ok(totals.dead > 500, `${totals.dead} dead`);
  assert.is(totals.forgotten, 0);
});

test('a log that loses its end, or a stream that is removed: only what it forgot is lost, and nothing that was committed', async () => {
  const totals = await halves(10_001, 11_000, '--break-log');
  assert.is(totals.faults, 0);
  assert.ok(totals.forgotten > 0, 'no log forgot what it had acknowledged');
});

/** FNV-1a of all that a world says. */
async function hashOf(seed: number, breakLog: boolean): Promise<number> {
  let hash = 0x811c9dc5;
  await runWorld(seed, {
    breakLog,
    trace(ms, who, what) {
      const line = `${ms} ${who} ${what}`;
      for (let i = 0; i < line.length; i++) hash = Math.imul(hash ^ line.charCodeAt(i), 0x01000193);
    },
  });
  return hash >>> 0;
}

test('the same seed is the same world, word for word', async () => {
  const hashes = new Set<number>();
  for (let seed = 1; seed <= 40; seed++) {
    const hash = await hashOf(seed, seed % 2 === 0);
    assert.is(await hashOf(seed, seed % 2 === 0), hash, `seed ${seed}`);
    hashes.add(hash);
  }
  assert.is(hashes.size, 40);
});

test.run();
