/**
 * Holds a program that knows nothing of its parent (nats-server) to the life of the supervisor: when the supervisor is gone,
 * however it went, the program is ended. `node tether.mjs <program> [arguments]`, with an IPC channel.
 */
import { spawn } from 'node:child_process';

const [program, ...args] = process.argv.slice(2);
let child;
const end = () => child.kill('SIGTERM');

// Before the program is started: a signal in between would end this process and leave the program.
process.on('disconnect', end);
process.on('SIGTERM', end);
process.on('SIGINT', end);
// It went while this file was loaded.
if (process.connected === false) process.exit(1);
child = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit'] });
// An error means that the supervisor is gone, which 'disconnect' tells.
child.on('spawn', () => process.send?.({ pid: child.pid }, () => {}));
child.on('error', (error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
child.on('exit', (code, signal) => process.exit(signal === null ? (code ?? 0) : 1));
