/** How far the run is: a bar in a terminal, a line every two seconds elsewhere. */
import { SingleBar } from 'cli-progress';
import { createProgressLine } from '../../lib/progress-line.js';

export interface Progress {
  /** Of the total; `detail` is shown beside it. */
  update(done: number, detail: string): void;
  stop(): void;
}

const plainEveryMs = 2_000;

export function startProgress(title: string, total: number, out: NodeJS.WriteStream): Progress {
  if (!out.isTTY) return createPlainProgress(title, total, out);
  const bar = new SingleBar({
    format: `${title} {bar} {percentage}% | {value}/{total} | {detail}`,
    stream: out,
    hideCursor: true,
    barsize: 24,
    formatValue: (value, _options, type) => (type === 'percentage' ? String(value) : value.toLocaleString('en')),
    // Redrawn by `update`, which the caller paces.
    fps: 20,
  });
  bar.start(total, 0, { detail: '' });
  return {
    update: (done, detail) => bar.update(done, { detail }),
    stop: () => bar.stop(),
  };
}

function createPlainProgress(title: string, total: number, out: NodeJS.WriteStream): Progress {
  const line = createProgressLine(out, plainEveryMs);
  return {
    update(done, detail) {
      const percent = total === 0 ? 100 : Math.floor((done / total) * 100);
      line.show(`${title} ${percent}% | ${done.toLocaleString('en')}/${total.toLocaleString('en')} | ${detail}`);
    },
    stop: () => undefined,
  };
}
