/** How far ClickHouse is known to have a shard, and whether that still holds for the log. */
import type { ShardContext } from './shard-options.js';

export interface Committed {
  readonly generation: string;
  /** Last message of the last block. */
  readonly hi: number;
  /** End of what is deferred besides (LOAD-5); `hi` when nothing is. */
  readonly deferred: number;
}

export interface Position {
  /** Undefined before the first recovery, and while the shard must not be loaded. */
  readonly committed: Committed | undefined;
  /** A break came since the last recovery (pull-reader.ts): the log may be another one. */
  readonly inDoubt: boolean;
  /** @param breaks the reader's, from before the recovery looked at the log */
  recovered(breaks: number): void;
  set(committed: Committed): void;
  forget(): void;
  /** Repeats what is committed, unless it is in doubt. */
  publish(): void;
}

export function createPosition({ shard, reader, onCommitted }: ShardContext): Position {
  let committed: Committed | undefined;
  let looked = 0;
  const isInDoubt = (): boolean => looked !== reader.breaks;
  const publish = (): void => {
    if (committed === undefined || isInDoubt()) return;
    onCommitted?.(shard, committed.generation, committed.deferred);
  };
  return {
    get committed() {
      return committed;
    },
    get inDoubt() {
      return isInDoubt();
    },
    recovered(breaks) {
      looked = breaks;
    },
    set(now) {
      committed = now;
      publish();
    },
    forget() {
      committed = undefined;
    },
    publish,
  };
}
