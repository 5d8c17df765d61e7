/**
 * Loaded first by every command (`--import`). When the reader of standard output or error has gone, as `head` does, the command ends
 * silently: by its usual signal where it has something to end, otherwise at once.
 */
let gone = false;

function onError(error: NodeJS.ErrnoException): void {
  // Whatever else is wrong with the stream cannot be shown on it.
  if (error.code !== 'EPIPE') process.exitCode = 1;
  if (gone) return;
  gone = true;
  if (process.listenerCount('SIGTERM') > 0) process.kill(process.pid, 'SIGTERM');
  else process.exit();
}

for (const stream of [process.stdout, process.stderr]) stream.on('error', onError);
