/**
 * Whether the log is still the one that was loaded (LOAD-8). One that lost its end, and took messages since, has messages below ClickHouse
 * 's position that are in no block: a reader that trusts that position would pass over them, or remove them.
 */
import type { JetStreamManager, StreamInfo } from '@nats-io/jetstream';

/** The last message of a stream that ClickHouse has: sequence, and time in ms; 0: unknown. */
export interface LastLoaded {
  readonly hi: number;
  readonly hiAtMs: number;
}

/**
 * The stream has another message of the sequence `last.hi` than the one that was loaded.
 * @param info asked for after `last`
 */
export async function isReplaced(
  jsm: Pick<JetStreamManager, 'streams'>,
  { config, state }: Pick<StreamInfo, 'config' | 'state'>,
  last: LastLoaded,
): Promise<boolean> {
  if (last.hiAtMs === 0 || last.hi < state.first_seq || last.hi > state.last_seq) return false;
  const message = await jsm.streams.getMessage(config.name, { seq: last.hi });
  return message !== null && Math.floor(message.time.getTime()) !== last.hiAtMs;
}

/** The same, or the stream is shorter than what was loaded. */
export const hasLostItsEnd = async (...[jsm, info, last]: Parameters<typeof isReplaced>): Promise<boolean> =>
  info.state.last_seq < last.hi || (await isReplaced(jsm, info, last));

/**
 * The message of a sequence that the block covers is another one than the block has: the log took it after the block's last
 * message. False for blocks of an older version, which do not say when that was.
 */
export const isAnother = (messageTimeMs: number, block: { readonly hiAtMs: number }): boolean =>
  block.hiAtMs > 0 && Math.floor(messageTimeMs) > block.hiAtMs;
