/**
 * Named places in the code at which a test can make a process kill itself, as if the power had gone: `--failpoint name@n` ends it
 * with SIGKILL at the n-th passing. `name@n:freeze` stops it with SIGSTOP instead, like a machine that is paused; SIGCONT lets it go on.
 * `npm run chaos` goes through all of them. Without the option a passing is one look at a boolean.
 */
import { UsageError } from './errors.js';

/** Every failpoint, and what is true when the process passes it. docs/configuration.md lists them. */
export const failpoints = {
  'gateway.before-publish': 'A message is made, and not yet given to the connection.',
  'gateway.after-publish': 'A message was given to the connection, and has no ack.',
  'gateway.after-ack': 'JetStream has a message, and nobody was told.',
  'gateway.before-answer': 'Answers of a stream are about to be written.',
  'gateway.after-answer': 'Answers of one stream were written; those of others of the same turn were not.',
  'gateway.draining': 'Clients were told that the gateway goes away; work is in flight.',
  'gateway.drained': 'Requests are answered, and what is gathered is about to be published.',
  'loader.after-recover': 'The warehouse has told where the shard stands; nothing was done with it.',
  'loader.after-gather': 'The messages of a block are here.',
  'loader.after-plan': 'It is known which batches of the block are there already (L5).',
  'loader.before-dead-letter': 'Batches that cannot be stored were found; the dead letters do not have them (L6).',
  'loader.after-dead-letter': 'The dead letters have them; the block without them is not stored.',
  'loader.after-carry': 'A block without rows was told as committed, and is not written (L5).',
  'loader.before-insert': 'The INSERT of a block is about to be sent.',
  'loader.half-sent': 'Half of the bytes of a block are on their way to the warehouse.',
  'loader.half-read': 'The answer to a question to the warehouse has begun, and is not read.',
  'loader.after-insert': 'The warehouse has answered the INSERT; nothing was read back.',
  'loader.after-read-back': 'The worker knows that the block is there, and nobody was told.',
  'loader.after-settled': 'The block was told as committed.',
  'loader.before-purge': 'Loaded messages are about to leave the stream.',
  'loader.after-purge': 'They have left it, and the worker has not noted it.',
} as const satisfies Readonly<Record<string, string>>;

export type Failpoint = keyof typeof failpoints;

let armed = false;
let target: string | undefined;
let left = 0;
let signal: 'SIGKILL' | 'SIGSTOP' = 'SIGKILL';

/** A place at which a test may end or freeze the process. Costs one comparison when none is armed. */
export function failpoint(name: Failpoint): void {
  if (armed && name === target && --left === 0) process.kill(process.pid, signal);
}

/** Whether this process has that failpoint and has not passed it: some places take a detour to be passed at the right moment. */
export const isArmed = (name: Failpoint): boolean => armed && name === target && left > 0;

const pattern = /^([a-z]+)\.([a-z-]+)(?:@([1-9]\d{0,8}))?(:freeze)?$/;

/**
 * Arms a failpoint of this process.
 * @param spec `name` or `name@n` (the n-th passing, from 1), with `:freeze` to stop instead of ending; empty: none
 * @param role whose process this is: the part of the name before the dot
 * @throws UsageError that lists the role's failpoints
 */
export function armFailpoint(spec: string, role: 'gateway' | 'loader'): void {
  if (spec === '') return;
  const names = Object.keys(failpoints).filter((name) => name.startsWith(`${role}.`));
  const [, of, point, times, freeze] = pattern.exec(spec) ?? [];
  const name = `${of}.${point}`;
  if (!names.includes(name)) {
    throw new UsageError(
      `--failpoint: "${spec}" is none of this process; give one of ${names.join(', ')}, with @n for its n-th passing, and :freeze to stop there instead of ending.`,
    );
  }
  target = name;
  left = Number(times ?? 1);
  signal = freeze === undefined ? 'SIGKILL' : 'SIGSTOP';
  armed = true;
}
