import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Chart, mergeCharts, pageOf, thin } from './report-page.js';

const chart = (title: string, name: string, x: string, y: number): Chart => ({
  ...{ title, kind: 'bar', x: 'case', y: 'events/s' },
  series: [{ name, points: [[x, y]] }],
});

test('charts of one title become one, with a series for each name', () => {
  const merged = mergeCharts([
    chart('rate', 'gateway', 'batch 1', 10),
    chart('cpu', 'gateway', 'batch 1', 1),
    chart('rate', 'ceiling', 'batch 1', 20),
    chart('rate', 'gateway', 'batch 20', 30),
  ]);
  assert.equal(
    merged.map(({ title, series }) => [title, series]),
    [
      [
        'rate',
        [
          {
            name: 'gateway',
            points: [
              ['batch 1', 10],
              ['batch 20', 30],
            ],
          },
          { name: 'ceiling', points: [['batch 1', 20]] },
        ],
      ],
      ['cpu', [{ name: 'gateway', points: [['batch 1', 1]] }]],
    ],
  );
});

test('long lines are thinned and keep their ends', () => {
  const points = Array.from({ length: 10_001 }, (_, i) => i);
  const thinned = thin(points, 600);
  assert.ok(thinned.length <= 601);
  assert.equal([thinned[0], thinned.at(-1)], [0, 10_000]);
  assert.equal(thin([1, 2, 3], 600), [1, 2, 3]);
});

test('a page needs nothing from elsewhere, and text in it stays text', () => {
  const page = pageOf({
    title: 'Sluice: <gateway>',
    subtitle: 'a & b',
    sections: [{ lines: ['x < y'], charts: [chart('</script><b>', 'one', 'a', 1)] }],
  });
  assert.match(page, /Sluice: &lt;gateway&gt;/);
  assert.match(page, /x &lt; y/);
  // Two scripts, chart.js and the drawing, and nothing that ends one early or loads another.
  assert.is(page.match(/<\/script>/g)?.length, 2);
  assert.not.match(page, /<(?:script|link|img)[^>]+(?:src|href)=/);
  const [, data] = /const charts = (.*);\n/.exec(page) ?? [];
  assert.is(JSON.parse(data ?? '')[0].title, '</script><b>');
});

test.run();
