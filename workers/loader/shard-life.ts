/** The phases of a shard's loader, and its pauses, which end early when there is no more reason to wait. */

/** `stopping`: takes no new block, and from `giveUpAtMs` on (Date.now) leaves even the block in flight. */
type Phase = { readonly kind: 'running' } | { readonly kind: 'stopping'; readonly giveUpAtMs: number };

export interface ShardLife {
  readonly stopping: boolean;
  /** Leave even the block in flight. */
  readonly givingUp: boolean;
  /** Resolves after so long, or when pauses end early. At once when giving up. */
  pause(ms: number): Promise<void>;
  /** Ends the pauses that run now. */
  endPauses(): void;
  /** Begins to stop. Ends the pauses now and again after the grace, ms. Returns what cancels the second. */
  stop(graceMs: number): () => void;
}

export function createShardLife(): ShardLife {
  let phase: Phase = { kind: 'running' };
  const pauses = new Set<() => void>();
  const isGivingUp = (): boolean => phase.kind === 'stopping' && Date.now() >= phase.giveUpAtMs;
  const endPauses = (): void => {
    for (const done of pauses) done();
  };
  return {
    get stopping() {
      return phase.kind === 'stopping';
    },
    get givingUp() {
      return isGivingUp();
    },
    pause: (ms) =>
      new Promise((resolve) => {
        if (isGivingUp()) return resolve();
        const done = (): void => {
          clearTimeout(timer);
          pauses.delete(done);
          resolve();
        };
        const timer = setTimeout(done, ms);
        pauses.add(done);
      }),
    endPauses,
    stop(graceMs) {
      phase = { kind: 'stopping', giveUpAtMs: Date.now() + graceMs };
      endPauses();
      const late = setTimeout(endPauses, graceMs);
      return () => clearTimeout(late);
    },
  };
}
