/** Waiting for a change, or for a time. */
export interface Waiters {
  /** Resolves at the next {@link wake}, or after so many ms. */
  wait(ms: number): Promise<void>;
  /** Something changed. */
  wake(): void;
}

export function createWaiters(): Waiters {
  const waiting = new Set<() => void>();
  return {
    wait: (ms) =>
      new Promise((resolve) => {
        const done = (): void => {
          clearTimeout(timer);
          waiting.delete(done);
          resolve();
        };
        const timer = Number.isFinite(ms) ? setTimeout(done, Math.max(0, ms)) : undefined;
        waiting.add(done);
      }),
    wake() {
      for (const done of waiting) done();
    },
  };
}
