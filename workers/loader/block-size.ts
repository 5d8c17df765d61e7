/**
 * Decides the size of a shard's blocks. A block that needs more memory or time than ClickHouse grants is halved until it passes, down
 * to a single message. After that blocks grow again slowly, and more slowly the more often they were halved. Pure.
 */
import type { Block, BlockLimits } from './block.js';

export interface BlockSizer {
  /** Limits of the next block. */
  limits(): BlockLimits;
  /** ClickHouse cannot take this block: the next ones are cut to half of it. False: it is a single message. */
  smaller(block: Sized): boolean;
  /** ClickHouse took a block. */
  stored(): void;
}

type Sized = Pick<Block, 'lo' | 'hi' | 'rows' | 'duplicate' | 'dead' | 'bytes'>;

/** Blocks that must pass before the limits double; twice as many after each halving. */
const patience = { first: 8, last: 512 } as const;

export function createBlockSizer(full: BlockLimits): BlockSizer {
  /** Of the full limits. */
  let share = 1;
  let blocks: number = patience.first;
  let left = 0;
  const part = (of: number): number => Math.max(1, Math.floor(of * share));
  return {
    limits: () => (share === 1 ? full : { ...full, rows: part(full.rows), bytes: part(full.bytes) }),
    smaller({ lo, hi, rows, duplicate, dead, bytes }) {
      if (lo === hi) return false;
      share = Math.min(share, Math.max((rows + duplicate + dead) / full.rows, bytes / full.bytes)) / 2;
      blocks = Math.min(blocks * 2, patience.last);
      left = blocks;
      return true;
    },
    stored() {
      if (share === 1 || --left > 0) return;
      left = blocks;
      share = Math.min(1, share * 2);
      if (share === 1) blocks = patience.first;
    },
  };
}
