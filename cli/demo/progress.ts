/** How far the run is: a bar in a terminal, a line every two seconds elsewhere. */
import { SingleBar } from 'cli-progress';

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
  let shownAt = 0;
  let last = '';
  const show = (): void => {
    if (last === '') return;
    out.write(`${last}\n`);
    last = '';
    shownAt = performance.now();
  };
  return {
    update(done, detail) {
      const percent = total === 0 ? 100 : Math.floor((done / total) * 100);
      last = `${title} ${percent}% | ${done.toLocaleString('en')}/${total.toLocaleString('en')} | ${detail}`;
      if (shownAt === 0 || performance.now() - shownAt >= plainEveryMs) show();
    },
    stop: show,
  };
}
