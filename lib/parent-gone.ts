/**
 * Ends a process when the process that started it is gone.
 */

/**
 * Calls back when the process that started this one with a channel is gone, however it went; also when it went before this call, while modules
 * were loaded. Never without such a channel.
 */
export function onParentGone(callback: () => void): void {
  process.on('disconnect', callback);
  if (process.connected === false) queueMicrotask(callback);
}
