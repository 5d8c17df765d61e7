/**
 * A page in headless Chromium: a folder is served, the page posts what it has to say to `/told`.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { need } from './workshop.js';

export interface PageOptions {
  readonly folder: string;
  /** Path and query. @default / */
  readonly path?: string;
  /** Called with each text that the page posts; true ends it. */
  readonly told: (text: string) => boolean;
  readonly withinMs: number;
}

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
};

/** @throws Missing */
export const needChromium = (): string => need('chromium', 'Debian: chromium');

/** Resolves when `told` has said true. @throws Error with the browser's words when the time is over */
export async function openPage({ folder, path = '/', told, withinMs }: PageOptions): Promise<void> {
  const profile = await mkdtemp(join(tmpdir(), 'sluice-chromium-'));
  let finish: () => void = () => {};
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const server = createServer((request, response) => {
    void serve(folder, request, response, (text) => {
      if (told(text)) finish();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'];
  const child = spawn(
    needChromium(),
    [...flags, '--remote-debugging-port=0', `--user-data-dir=${profile}`, `http://127.0.0.1:${port}${path}`],
    { stdio: ['ignore', 'ignore', 'pipe'], detached: true },
  );
  let words = '';
  child.stderr.on('data', (chunk: Buffer) => {
    words = (words + chunk.toString()).slice(-2_000);
  });
  const gone = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', () => resolve('it ended'));
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(resolve, withinMs, `nothing within ${withinMs / 1_000} s`);
  });
  try {
    const trouble = await Promise.race([finished.then(() => undefined), gone, late]);
    if (trouble !== undefined) throw new Error(`the page did not finish: ${trouble}; ${words}`);
  } finally {
    clearTimeout(timer);
    try {
      // Chromium's own processes are of its group.
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    } catch {
      // Gone.
    }
    await gone;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** A page that only sets its title: the title is posted for it. */
const reporter =
  "<script>setInterval(() => document.title !== 'waiting' && fetch('/told', { method: 'POST', body: document.title }), 200);" +
  "const fail = (what) => fetch('/told', { method: 'POST', body: 'error: ' + what });" +
  "addEventListener('unhandledrejection', (e) => fail(e.reason)); addEventListener('error', (e) => fail(e.message));</script>";

async function serve(
  folder: string,
  request: IncomingMessage,
  response: ServerResponse,
  told: (text: string) => void,
): Promise<void> {
  const { pathname } = new URL(request.url ?? '/', 'http://127.0.0.1');
  if (pathname === '/told') {
    let text = '';
    for await (const chunk of request) text += String(chunk);
    response.writeHead(204).end();
    return told(text);
  }
  const name = normalize(pathname === '/' ? '/index.html' : pathname);
  try {
    const body = await readFile(join(folder, name));
    response.writeHead(200, { 'content-type': types[extname(name)] ?? 'application/octet-stream' });
    response.end(name === '/index.html' ? `${body.toString()}${reporter}` : body);
  } catch {
    response.writeHead(404).end();
  }
}
