/** HTTP/1.1 over plain sockets: text as an attack wants it, and a count of the answers. */
import type { Socket } from 'node:net';
import type { Counts } from '../attack.js';
import { dial, opened, type Target, written } from './sockets.js';

export class H1Peer {
  over = false;
  private readonly listeners: (() => void)[] = [];
  private rest = '';
  /** Requests that were sent whole and have no answer. */
  unanswered = 0;

  private constructor(
    readonly socket: Socket,
    private readonly counts: Counts,
  ) {}

  /** Undefined: the connection was not taken. */
  static async open(target: Target, counts: Counts): Promise<H1Peer | undefined> {
    const socket = dial(target, 'http/1.1');
    const peer = new H1Peer(socket, counts);
    counts.connections++;
    socket.on('data', (chunk: Buffer) => peer.take(chunk));
    socket.once('close', () => peer.end());
    if (await opened(socket)) return peer;
    counts.refused++;
    return undefined;
  }

  /** Writes no faster than the gateway reads. False: the connection is over. */
  write(text: string | Uint8Array): Promise<boolean> {
    this.counts.bytesOut += text.length;
    return written(this.socket, text);
  }

  /** Resolves at the next answer, or at the end of the connection. */
  change(): Promise<void> {
    if (this.over) return Promise.resolve();
    return new Promise((resolve) => this.listeners.push(resolve));
  }

  /** Resolves when all requests have their answer, or the time is over. */
  async untilAnswered(withinMs: number): Promise<void> {
    const until = performance.now() + withinMs;
    while (this.unanswered > 0 && performance.now() < until) await Promise.race([this.change(), after(20)]);
  }

  private take(chunk: Buffer): void {
    this.counts.bytesIn += chunk.length;
    // A status line may span two chunks: the end of one is looked at again, and never holds a whole line.
    const text = this.rest + chunk.toString('latin1');
    const found = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)];
    this.rest = text.slice(Math.max((found.at(-1)?.index ?? -1) + 1, text.length - 12));
    for (const match of found) {
      const status = match[1] ?? '';
      if (status !== '200') this.counts.statuses[status] = (this.counts.statuses[status] ?? 0) + 1;
      if (status === '100') continue;
      this.counts.answered++;
      this.unanswered--;
    }
    if (found.length > 0) this.wakeAll();
  }

  private end(): void {
    this.over = true;
    this.counts.refused += Math.max(0, this.unanswered);
    this.unanswered = 0;
    this.wakeAll();
  }

  private wakeAll(): void {
    for (const listener of this.listeners.splice(0)) listener();
  }
}

/** The head of a request, with its blank line. */
export const head = (method: string, path: string, headers: readonly string[] = []): string =>
  `${[`${method} ${path} HTTP/1.1`, 'host: gateway.example', ...headers].join('\r\n')}\r\n\r\n`;

const after = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
