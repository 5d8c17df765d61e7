/**
 * How far a long look into log and ClickHouse is: one line that is written over in a terminal, a line every few seconds
 * elsewhere. On standard error: standard output is for the answer.
 */
export interface ProgressLine {
  show(text: string): void;
  /** Clears the line. */
  end(): void;
}

const everyMs = { terminal: 100, elsewhere: 3_000 } as const;

export function createProgressLine(out: Pick<NodeJS.WriteStream, 'isTTY' | 'write'>): ProgressLine {
  const interval = out.isTTY ? everyMs.terminal : everyMs.elsewhere;
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
    end() {
      if (shown && out.isTTY) out.write('\r\u001b[K');
    },
  };
}
