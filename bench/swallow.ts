/**
 * A warehouse that reads blocks and throws them away, as its own process: it remembers which blocks it was given, which is
 * all that a worker asks. For bench/worker-core.ts, where ClickHouse would be most of the picture.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What it tells its parent. */
export type FromSwallow =
  | { readonly type: 'ready'; readonly port: number }
  /** Rows of all blocks so far; 0 when the first one begins. */
  | { readonly type: 'rows'; readonly rows: number };

const say = (message: FromSwallow): void => void process.send?.(message);

/** The constants of a block's INSERT: stream, shard, block, lo, hi, rows. */
const constants = /'([^']+)', (\d+), (\d+), (\d+), (\d+), (\d+), 0, 0[, ]/;

const blocks = new Map<string, { readonly n: string; readonly lo: string; readonly hi: string }>();
let rows = 0;
let begun = false;

const server = createServer({ maxHeaderSize: 1024 ** 2 }, (request, response) => {
  const { searchParams: parameters } = new URL(request.url ?? '/', 'http://localhost');
  const inUrl = parameters.get('query') ?? '';
  const isBlock = /\binput\s*\(/.test(inUrl);
  let text = inUrl;
  if (isBlock && !begun) {
    begun = true;
    say({ type: 'rows', rows: 0 });
  }
  request.on('data', (chunk: Buffer) => {
    if (!isBlock) text += chunk.toString();
  });
  request.on('end', () => {
    const named = (name: string): string => parameters.get(`param_${name}`) ?? '';
    if (isBlock) {
      const match = constants.exec(text);
      if (match === null) {
        response.statusCode = 500;
        response.end('The INSERT is not of the shape that bench/swallow.ts expects.\n');
        return;
      }
      const [, stream, shard, block, lo = '', hi = '', count] = match;
      blocks.set(`${stream} ${shard} ${block}`, { n: '1', lo, hi });
      rows += Number(count);
      say({ type: 'rows', rows });
      response.end();
    } else if (/_block = \{block/.test(text)) {
      const found = blocks.get(`${named('stream')} ${named('shard')} ${named('block')}`);
      response.end(`${JSON.stringify(found ?? { n: '0', lo: '0', hi: '0' })}\n`);
    } else if (/max\(_block\)/.test(text) && !/GROUP BY/.test(text)) {
      response.end(`${JSON.stringify({ n: '0', block: '0', hi: '0' })}\n`);
    } else response.end();
  });
});
server.listen(0, '127.0.0.1', () => say({ type: 'ready', port: (server.address() as AddressInfo).port }));
process.on('disconnect', () => process.exit(0));
