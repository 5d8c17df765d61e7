/**
 * A simulated JetStream server: a stream per shard, lines to publish on, and what workers read. It acknowledges what it has
 * written, and keeps that over a restart (as nats-server does when it is killed); what the disk has is another matter, which
 * a power loss shows: {@link SimulatedLog.rewind}.
 */
import { createLines, type LineEvents, type LineHandle } from './log-lines.js';
import { createLogStore, type LogOptions, type StoredMessage, type Stream } from './log-store.js';
import type { Process } from './process.js';
import type { World } from './world.js';

/** Why somebody cannot talk to the log now. */
export class LogDown extends Error {}

export interface SimulatedLog {
  readonly up: boolean;
  /** The stream of a shard that is there now. @throws LogDown */
  stream(shard: number): Stream;
  /** The same for the eyes of the world: whatever state the server is in. */
  peek(shard: number): Stream | undefined;
  /** All there ever were, with all that they ever held, for the judge. */
  readonly history: readonly { readonly stream: Stream; readonly messages: readonly StoredMessage[] }[];
  readonly shards: number;
  /** It has lost something, or an operator has removed something. */
  readonly lossy: boolean;
  /** A line for a gateway, which is made again when it breaks. */
  connect(owner: Process, events: LineEvents): LineHandle;
  /** Makes the streams that are missing, and reports all. @throws LogDown */
  ensureStreams(): readonly Stream[];
  purge(shard: number, upTo: number): void;
  /** Killed, and up again after `ms`. */
  restart(ms: number): void;
  /** Loses its power: what was not on the disk is forgotten. Returns whether something was. */
  rewind(): boolean;
  /** An operator removes a stream. */
  remove(shard: number): void;
  /** Cuts every line, or lets nothing pass on some for a while. */
  cutLines(): void;
  stallLines(ms: number): void;
  /** Called when something is written, by shard. */
  onWritten(listen: (shard: number) => void): void;
  /** Called when every line breaks: those of workers too. */
  onBreak(listen: () => void): void;
}

export function createLog(world: World, options: LogOptions): SimulatedLog {
  const { time } = world;
  const writtenListeners: ((shard: number) => void)[] = [];
  const breakListeners: (() => void)[] = [];
  let up = true;
  const store = createLogStore(world, options, (shard) => {
    for (const listen of writtenListeners) listen(shard);
  });
  const { streams } = store;
  const lines = createLines(world, {
    get up() {
      return up;
    },
    write: store.write,
  });

  const cutLines = (): void => {
    world.trace?.('log', 'loses its lines');
    lines.cut();
    for (const listen of breakListeners) listen();
  };

  const stream = (shard: number): Stream => {
    const found = streams[shard];
    if (!up) throw new LogDown('the log is down');
    if (found === undefined) throw new LogDown('stream not found');
    return found;
  };

  return {
    get up() {
      return up;
    },
    shards: options.shards,
    history: store.history,
    stream,
    get lossy() {
      return store.lossy;
    },
    peek: (shard) => streams[shard],
    connect: lines.connect,
    ensureStreams() {
      if (!up) throw new LogDown('the log is down');
      return Array.from({ length: options.shards }, (_, shard) => streams[shard] ?? store.make(shard));
    },
    purge: (shard, upTo) => store.purge(stream(shard), upTo),
    restart(ms) {
      if (!up) return;
      world.trace?.('log', `is killed, up again in ${Math.round(ms)} ms`);
      up = false;
      cutLines();
      time.after(ms, () => {
        up = true;
        world.trace?.('log', 'is up');
      });
    },
    rewind: store.rewind,
    remove: store.remove,
    cutLines,
    stallLines(ms) {
      world.trace?.('log', `lines stall for ${Math.round(ms)} ms`);
      lines.stall(ms);
    },
    onWritten: (listen) => void writtenListeners.push(listen),
    onBreak: (listen) => void breakListeners.push(listen),
  };
}
