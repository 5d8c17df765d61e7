/**
 * `--report FILE`: results as one HTML page that needs nothing else. chart.js is inlined from node_modules.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** Lines. Charts of one title, from several results, become one: their series are joined by name. */
export interface Chart {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  /** Percentiles are spread out towards 100; latencies are easier to read on a logarithmic scale. */
  readonly percentiles?: boolean;
  readonly logarithmic?: boolean;
  readonly series: readonly Series[];
}

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [number, number])[];
}

export interface Page {
  readonly title: string;
  /** A line or two below the title: machine, date, command. */
  readonly subtitle: string;
  readonly sections: readonly { readonly lines: readonly string[]; readonly charts: readonly Chart[] }[];
}

/** One chart for each title, in the order of their first appearance. */
export function mergeCharts(charts: readonly Chart[]): Chart[] {
  const merged = new Map<string, Chart>();
  for (const chart of charts) {
    const before = merged.get(chart.title);
    if (before === undefined) {
      merged.set(chart.title, chart);
      continue;
    }
    const series = new Map(before.series.map((one) => [one.name, one]));
    for (const one of chart.series) {
      const known = series.get(one.name);
      series.set(one.name, { name: one.name, points: [...(known?.points ?? []), ...one.points] });
    }
    merged.set(chart.title, { ...before, series: [...series.values()] });
  }
  return [...merged.values()];
}

/** Lines are thinned to this many points: more than a screen has columns. */
const maxPoints = 600;

/** At most `most` points: every n-th, and the last. */
export function thin<T>(points: readonly T[], most = maxPoints): T[] {
  if (points.length <= most) return [...points];
  const step = Math.ceil(points.length / (most - 1));
  return points.filter((_, i) => i % step === 0 || i === points.length - 1);
}

/** JSON that is safe inside a script element. */
const inScript = (value: unknown): string => JSON.stringify(value).replaceAll('<', '\\u003c');
const escapeHtml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

function chartLibrary(): string {
  const folder = dirname(createRequire(import.meta.url).resolve('chart.js'));
  return readFileSync(join(folder, 'chart.umd.min.js'), 'utf8').replaceAll('</script', '<\\/script');
}

export function pageOf(page: Page): string {
  const charts = mergeCharts(page.sections.flatMap((section) => section.charts)).map((chart) => ({
    ...chart,
    series: chart.series.map((one) => ({ ...one, points: thin(one.points) })),
  }));
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(page.title)}</title>
<style>
  :root { color-scheme: light dark; --line: #8884; --soft: #8889; }
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; }
  h1 { font-size: 1.5rem; margin: 0; } p { margin: .2rem 0 1.5rem; color: var(--soft); }
  h2 { font-size: 1rem; margin: 0 0 .5rem; }
  .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 1.5rem; }
  figure { margin: 0; padding: 1rem; border: 1px solid var(--line); border-radius: 8px; min-width: 0; }
  .plot { position: relative; height: 320px; }
  pre { overflow-x: auto; padding: 1rem; border: 1px solid var(--line); border-radius: 8px; font-size: 13px; line-height: 1.35; }
</style>
<h1>${escapeHtml(page.title)}</h1>
<p>${escapeHtml(page.subtitle)}</p>
<div class="charts">
${charts.map((chart, i) => `<figure><h2>${escapeHtml(chart.title)}</h2><div class="plot"><canvas id="chart-${i}"></canvas></div></figure>`).join('\n')}
</div>
${page.sections.map((section) => `<pre>${escapeHtml(section.lines.join('\n'))}</pre>`).join('\n')}
<script>${chartLibrary()}</script>
<script>
const charts = ${inScript(charts)};
${drawing}
</script>
</html>
`;
}

/** Runs in the page. Percentile p stands at log10(1 / (1 - p)): 90, 99, 99.9 are evenly spaced. */
const drawing = `
const colours = ['#2f6fde', '#e07b39', '#2a9d6f', '#b23a8e', '#8a6d3b', '#d1495b', '#3aa6b9', '#6b5bd2', '#7f8c8d'];
const dark = matchMedia('(prefers-color-scheme: dark)').matches;
Chart.defaults.color = dark ? '#ccc' : '#444';
Chart.defaults.borderColor = dark ? '#444' : '#ddd';
Chart.defaults.animation = false;
const place = (percent) => Math.log10(1 / (1 - Math.min(percent, 99.999) / 100));
const percentTicks = [0, 50, 90, 99, 99.9, 99.99];
charts.forEach((chart, index) => {
  const datasets = chart.series.map((one, i) => ({
    label: one.name,
    data: one.points.map(([x, y]) => ({ x: chart.percentiles ? place(x) : x, y })),
    borderColor: colours[i % colours.length],
    backgroundColor: colours[i % colours.length] + '22',
    borderWidth: 2,
    pointRadius: chart.percentiles ? 2 : 0,
    tension: 0,
  }));
  const x = { type: 'linear', title: { display: true, text: chart.x } };
  if (chart.percentiles) {
    x.max = place(99.999);
    x.afterBuildTicks = (axis) => { axis.ticks = percentTicks.map((p) => ({ value: place(p) })); };
    x.ticks = { callback: (value) => String(percentTicks.find((p) => Math.abs(place(p) - value) < 1e-9) ?? '') };
  }
  new Chart(document.getElementById('chart-' + index), {
    type: 'line',
    data: { datasets },
    options: {
      maintainAspectRatio: false,
      interaction: { mode: 'nearest', intersect: false },
      scales: {
        x,
        y: {
          title: { display: true, text: chart.y },
          type: chart.logarithmic ? 'logarithmic' : 'linear',
          beginAtZero: !chart.logarithmic,
        },
      },
      plugins: { legend: { display: datasets.length > 1, position: 'bottom' } },
    },
  });
});
`;

export function writePage(file: string, page: Page): void {
  writeFileSync(file, pageOf(page));
}
