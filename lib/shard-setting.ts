/**
 * The setting that says how many shards there are: the key `shards` of the settings bucket.
 *
 * A plain number is all of it until the number is changed for the first time (workers/shards.ts): epoch 1. From then on it is
 * JSON. Each change, and each one that was given up, begins a new epoch. Streams listen to subjects of the present epoch only,
 * so a gateway that computes shards from an older number cannot put a batch anywhere.
 */
import { UsageError } from './errors.js';
import { settingsBucket } from './subjects.js';

export interface ShardSetting {
  readonly shards: number;
  /** Counts up from 1. */
  readonly epoch: number;
  /** Somebody is at it: no batches are taken until it is gone. */
  readonly changing?: ShardChange | undefined;
}

export interface ShardChange {
  /** The new number; the present one once only the streams are still to be opened. */
  readonly to: number;
  /** Who is at it. */
  readonly by: string;
  /** Counts up while it is done, so that others see whether it was abandoned. */
  readonly beat: number;
}

export const shardsKey = 'shards';
export const maxShards = 1024;

const isCount = (value: unknown, most: number): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= most;

/** @throws UsageError when it is no setting */
export function parseShardSetting(text: string): ShardSetting {
  const number = Number(text);
  if (isCount(number, maxShards)) return { shards: number, epoch: 1 };
  try {
    const { shards, epoch, changing } = JSON.parse(text) as Partial<ShardSetting>;
    if (isCount(shards, maxShards) && isCount(epoch, Number.MAX_SAFE_INTEGER)) {
      if (changing === undefined) return { shards, epoch };
      const { to, by, beat } = changing;
      if (isCount(to, maxShards)) return { shards, epoch, changing: { to, by: String(by), beat: Number(beat) } };
    }
  } catch {
    // As bad as any other text.
  }
  throw new UsageError(
    `The key "${shardsKey}" of the bucket ${settingsBucket} holds "${text.slice(0, 40)}", which is no number of shards: put back the number of EV_ streams.`,
  );
}

export const formatShardSetting = (setting: ShardSetting): string =>
  setting.epoch === 1 && setting.changing === undefined ? String(setting.shards) : JSON.stringify(setting);

/** What users read while it lasts. */
export function changeText({ shards, changing }: ShardSetting): string {
  return (
    `the number of shards is being changed${changing === undefined || changing.to === shards ? '' : ` from ${shards} to ${changing.to}`}` +
    ' (if nobody is at it any more: `sluice shards` mends it)'
  );
}
