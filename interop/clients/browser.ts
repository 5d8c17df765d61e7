/** connect-web and grpc-web in headless Chromium. */
import { join } from 'node:path';
import { needChromium, openPage } from '../browser.js';
import { type CaseName, readLine } from '../cases.js';
import { root, workshop } from '../workshop.js';
import type { ForeignClient } from './client.js';

/** No streams, deadlines of streams and compression: a page has none of them. */
const cases: readonly CaseName[] = ['unary', 'wrong-key', 'bad-event', 'too-large', 'flood', 'retry', 'drain', 'kill'];
const withinMs = 180_000;

function createBrowserClient(name: string, about: string): ForeignClient {
  let folder = '';
  return {
    name,
    about,
    cases,
    async prepare(cache, say) {
      needChromium();
      const shop = await workshop(cache, 'browser', async ({ sh }) => {
        say('bundling the page …');
        await sh('npm', 'install', '--silent', '--no-audit', '--no-fund', '--ignore-scripts');
        await sh(join(root, 'node_modules/.bin/buf'), 'generate', 'proto', '--path', 'proto/sluice/ingest');
        const bundle = [
          'app.ts',
          '--bundle',
          '--format=esm',
          '--target=es2022',
          '--outfile=app.js',
          '--log-level=warning',
        ];
        await sh('node_modules/.bin/esbuild', ...bundle);
      });
      folder = shop.folder;
    },
    async run(task, listener) {
      let trouble: string | undefined;
      const told = (text: string): boolean => {
        const line = readLine(text);
        if (line === undefined) {
          if (text !== '"done"') trouble = text;
          return true;
        }
        if ('started' in line) listener.started(line.case);
        else listener.outcome(line);
        return false;
      };
      await openPage({ folder, path: `/?task=${encodeURIComponent(JSON.stringify(task))}`, told, withinMs });
      if (trouble !== undefined) throw new Error(trouble);
    },
  };
}

export const browserClients: readonly ForeignClient[] = [
  createBrowserClient('connect-web', 'Chromium, @connectrpc/connect-web'),
  createBrowserClient('connect-web-grpc-web', "Chromium, @connectrpc/connect-web in gRPC-Web's protocol"),
  createBrowserClient('grpc-web-text', 'Chromium, grpc-web in its text mode'),
  createBrowserClient('grpc-web-binary', 'Chromium, grpc-web in its binary mode'),
];
