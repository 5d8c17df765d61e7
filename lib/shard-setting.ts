/**
 * The number of shards: the key `shards` of the settings bucket, as text.
 *
 * Each change of the number (workers/ledger/shards.ts), and each one that was given up, begins a new epoch. Streams listen to subjects
 * of the present epoch only, so a gateway that computes shards from an older number cannot put a batch anywhere.
 *
 * Sluice writes JSON with a check over number and epoch. A number that was edited by hand does not have it. Older versions
 * wrote no check, and a plain number in epoch 1: shard-number.ts holds such a setting against the streams.
 */
import { createHash } from 'node:crypto';
import { UsageError } from './errors.js';
import { settingsBucket } from './subjects.js';

export interface ShardSetting {
  readonly shards: number;
  /** Counts up from 1. */
  readonly epoch: number;
  /** A command changes it: gateways take no batches until it is gone. */
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

const isCount = (value: unknown, max: number): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= max;

/** What Sluice writes beside a number: eight hex digits. */
const checkOf = ({ shards, epoch }: Pick<ShardSetting, 'shards' | 'epoch'>): string =>
  createHash('sha256').update(`sluice: ${shards} shards in epoch ${epoch}`).digest('hex').slice(0, 8);

/** What to do about a setting that is not Sluice's. */
export const rebuildAdvice =
  '`sluice shards rebuild` writes the number that the streams have; `sluice shards --set N` is the way to change it';

const shown = (text: string): string => text.replace(/[^ -~]/g, '?').slice(0, 60);

/** A setting as it was read. */
export interface ReadSetting extends ShardSetting {
  /** It carries the check: Sluice wrote it. */
  readonly checked: boolean;
}

/** @throws UsageError when it is no setting, or its check is that of another number */
export function readSetting(text: string): ReadSetting {
  const number = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (isCount(number, maxShards)) return { shards: number, epoch: 1, checked: false };
  const parsed = parsedSetting(text);
  if (parsed !== undefined) return parsed;
  throw new UsageError(
    `The number of shards was edited by hand: the key "${shardsKey}" of the bucket ${settingsBucket} holds "${shown(text)}". ` +
      `Gateways and workers do not take that up: ${rebuildAdvice}.`,
  );
}

function parsedSetting(text: string): ReadSetting | undefined {
  try {
    const { shards, epoch, changing, check } = JSON.parse(text) as Partial<ShardSetting> & { check?: unknown };
    if (!isCount(shards, maxShards) || !isCount(epoch, Number.MAX_SAFE_INTEGER)) return undefined;
    if (check !== undefined && check !== checkOf({ shards, epoch })) return undefined;
    const checked = check !== undefined;
    if (changing === undefined) return { shards, epoch, checked };
    const { to, by, beat } = changing;
    if (!isCount(to, maxShards)) return undefined;
    return { shards, epoch, changing: { to, by: String(by), beat: Number(beat) }, checked };
  } catch {
    return undefined;
  }
}

/** @throws UsageError when it is no setting */
export function parseShardSetting(text: string): ShardSetting {
  const { checked, ...setting } = readSetting(text);
  return setting;
}

export const formatShardSetting = ({ shards, epoch, changing }: ShardSetting): string =>
  JSON.stringify({ shards, epoch, ...(changing === undefined ? {} : { changing }), check: checkOf({ shards, epoch }) });

/** What users read while it lasts. */
export function changeText({ shards, changing }: ShardSetting): string {
  return (
    `the number of shards is being changed${changing === undefined || changing.to === shards ? '' : ` from ${shards} to ${changing.to}`}` +
    ' (if no command is running any more: `sluice shards` repairs it)'
  );
}
