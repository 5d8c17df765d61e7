import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Chart, mergeCharts, pageOf, thin } from './report-page.js';

const chart = (title: string, name: string, x: number, y: number): Chart => ({
  ...{ title, x: 'seconds', y: 'events/s' },
  series: [{ name, points: [[x, y]] }],
});

test('charts of one title become one, with a series for each name', () => {
  const merged = mergeCharts([
    chart('rate', 'a', 1, 10),
    chart('cpu', 'a', 1, 1),
    chart('rate', 'b', 1, 20),
    chart('rate', 'a', 2, 30),
  ]);
  assert.equal(
    merged.map(({ title, series }) => [title, series.map(({ name, points }) => [name, points])]),
    [
      [
        'rate',
        [
          [
            'a',
            [
              [1, 10],
              [2, 30],
            ],
          ],
          ['b', [[1, 20]]],
        ],
      ],
      ['cpu', [['a', [[1, 1]]]]],
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
    sections: [{ lines: ['x < y'], charts: [chart('</script><b>', 'one', 1, 1)] }],
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
