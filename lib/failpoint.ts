/**
 * Named places in the code at which a test can make a process kill itself, as if the power had failed: `--failpoint name@n` ends it
 * with SIGKILL at the n-th passing. `name@n:freeze` stops it with SIGSTOP instead, like a paused machine; SIGCONT continues it. `npm
 * run chaos` uses all of them. Without the option, passing one costs one look at a boolean.
 */
import { UsageError } from './errors.js';

/** Every failpoint, and what is true when the process passes it. docs/configuration.md lists them. */
export const failpoints = {
  'gateway.before-publish': 'A message is complete, and the connection does not have it yet.',
  'gateway.after-publish': 'The connection has a message, and no ack has come.',
  'gateway.after-ack': 'JetStream has a message, and no caller has an answer.',
  'gateway.before-answer': 'Answers of a stream are about to be written.',
  'gateway.after-answer': 'Answers of one stream were written; those of others of the same turn were not.',
  'gateway.draining': 'Clients know that the gateway drains; work is in flight.',
  'gateway.drained': 'Requests are answered, and the gathered messages are about to be published.',
  'loader.after-recover': 'ClickHouse has answered how far the shard is; the loader has not used the answer.',
  'loader.after-gather': 'The worker has the messages of a block.',
  'loader.after-plan': 'The worker knows which batches of the block are stored already (LOAD-5).',
  'loader.before-dead-letter':
    'The worker has found batches that cannot be stored; the dead letters do not have them (LOAD-6).',
  'loader.after-dead-letter': 'The dead letters have these batches; the block without them is not stored.',
  'loader.after-carry': 'The worker has published a block without rows as committed, and does not write it (LOAD-5).',
  'loader.before-insert': 'The INSERT of a block is about to be sent.',
  'loader.half-sent': 'Half of the bytes of a block are on their way to ClickHouse.',
  'loader.half-read': 'An answer of ClickHouse has begun, and is not read.',
  'loader.after-insert': 'ClickHouse has answered the INSERT; the worker has not read the block back.',
  'loader.after-read-back': 'The worker knows that the block is stored, and has not published it as committed.',
  'loader.after-settled': 'The worker has published the block as committed.',
  'loader.before-purge': 'The worker is about to remove loaded messages from the stream.',
  'loader.after-purge': 'The stream has removed them, and the worker has not noted it.',
} as const satisfies Readonly<Record<string, string>>;

export type Failpoint = keyof typeof failpoints;

/**
 * Protections that a control run of `npm run chaos` leaves out, to show that the harness finds what they prevent. No option or setting
 * reaches them: chaos/leave-out.ts, which the run loads into its processes, is the only caller of {@link leaveOut}.
 */
export const protections = {
  'insert-if-absent': 'The INSERT of a block looks whether the block is there (LOAD-2).',
  'retry-check': 'The worker looks whether a batch that was sent again is stored already (LOAD-5).',
  'event-ids': 'The worker compares event ids of a batch of which as many events are stored (DEDUP-4).',
  'ack-before-durable': "The gateway waits for JetStream's ack before it answers (INGEST-1).",
} as const satisfies Readonly<Record<string, string>>;

export type Protection = keyof typeof protections;

let leftOut: Protection | undefined;

/** Switches a protection off in this process, until it ends. */
export function leaveOut(protection: Protection): void {
  leftOut = protection;
}

/** Whether a control run leaves this protection out. Costs one comparison. */
export const isLeftOut = (protection: Protection): boolean => leftOut === protection;

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
