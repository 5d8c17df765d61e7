/**
 * How far something long is: one line that is written over in a terminal, a line every few seconds elsewhere. On standard
 * error: standard output is for the answer.
 */
type Output = Pick<NodeJS.WriteStream, 'isTTY' | 'write'>;

export interface ProgressLine {
  show(text: string): void;
  /** Clears the line in a terminal, so that another text may stand there. */
  clear(): void;
}

const everyMs = { terminal: 100, elsewhere: 3_000 } as const;

/** @param elsewhereMs between two lines where there is no terminal */
export function createProgressLine(out: Output, elsewhereMs: number = everyMs.elsewhere): ProgressLine {
  const interval = out.isTTY ? everyMs.terminal : elsewhereMs;
  let shownAt = performance.now();
  let shown = false;
  return {
    show(text) {
      const now = performance.now();
      if (now - shownAt < interval) return;
      shownAt = now;
      shown = true;
      out.write(out.isTTY ? `\r\u001b[K${text}` : `${text}\n`);
    },
    clear() {
      if (shown && out.isTTY) out.write('\r\u001b[K');
      shown = false;
    },
  };
}
