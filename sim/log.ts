/**
 * A simulated JetStream server: a stream per shard, lines to publish on, and what workers read. It acknowledges what it has
 * written, and keeps that over a restart (as nats-server does when it is killed); what the disk has is another matter, which
 * a power loss shows: {@link SimulatedLog.rewind}.
 */
import type { OpenLogWire } from '../gateway/log/log-wire.js';
import { jetStreamErrors } from '../lib/jetstream-errors.js';
import type { Process } from './process.js';
import type { World } from './world.js';

export interface StoredMessage {
  readonly sequence: number;
  /** The server's clock when it was written, ms since 1970. */
  readonly timeMs: number;
  readonly data: Uint8Array;
  /** The log lost it: by a power loss, or because its stream was removed before it was loaded. */
  forgotten: boolean;
}

export interface Stream {
  readonly shard: number;
  /** Another one after it was made again. */
  readonly generation: string;
  /** Those that are there, in their order. */
  messages: StoredMessage[];
  /** First and last sequence; an empty stream has first = last + 1. */
  first: number;
  last: number;
  bytes: number;
  /** A power loss forgets what comes after. */
  synced: number;
}

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
  connect(owner: Process, events: { onUp(openWire: OpenLogWire): void; onDown(): void }): LineHandle;
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

export interface LineHandle {
  close(): void;
}

export interface LogOptions {
  readonly shards: number;
  readonly maxBytes: number;
  /** How far the disk lags behind, ms; 0: each write is synced before it is acknowledged. */
  readonly syncMs: number;
}

const encoder = new TextEncoder();
/** `ev.<shard>.<tenant>` */
const subjectShard = (subject: string): number => Number(subject.split('.')[1]);
const answer = (value: object): Uint8Array => encoder.encode(JSON.stringify(value));
const decoder = new TextDecoder();

export function createLog(world: World, options: LogOptions): SimulatedLog {
  const { time, random } = world;
  const streams: (Stream | undefined)[] = [];
  const history: { stream: Stream; messages: StoredMessage[] }[] = [];
  const lines = new Set<Line>();
  const writtenListeners: ((shard: number) => void)[] = [];
  const breakListeners: (() => void)[] = [];
  let up = true;
  let made = 0;
  let lossy = false;
  /** The server's clock against the world's, ms. */
  let skew = 0;

  const make = (shard: number): Stream => {
    const stream: Stream = {
      shard,
      generation: `g${++made}`,
      messages: [],
      first: 1,
      last: 0,
      bytes: 0,
      synced: 0,
    };
    streams[shard] = stream;
    history.push({ stream, messages: [] });
    world.trace?.('log', `makes stream ${shard} as ${stream.generation}`);
    return stream;
  };

  /** Writes a message, or says why not. */
  const write = (subject: string, data: Uint8Array): Uint8Array | 'no responders' => {
    const stream = streams[subjectShard(subject)];
    if (stream === undefined) return 'no responders';
    if (stream.bytes + data.length > options.maxBytes) {
      world.trace?.('log', `stream ${stream.shard} is full`);
      return answer({
        error: { code: 503, err_code: jetStreamErrors.streamStoreFailed, description: 'maximum bytes exceeded' },
      });
    }
    const message: StoredMessage = {
      sequence: ++stream.last,
      timeMs: Math.floor(world.epochMs + time.now + skew),
      data,
      forgotten: false,
    };
    stream.messages.push(message);
    stream.bytes += data.length;
    history.find((known) => known.stream === stream)?.messages.push(message);
    world.trace?.('log', `writes ${stream.generation}/${message.sequence} (${data.length} bytes)`);
    if (options.syncMs === 0) stream.synced = message.sequence;
    else {
      time.after(random() * options.syncMs, () => {
        if (streams[stream.shard] === stream && stream.last >= message.sequence) {
          stream.synced = Math.max(stream.synced, message.sequence);
        }
      });
    }
    for (const listen of writtenListeners) listen(stream.shard);
    return answer({ stream: `EV_${stream.shard}`, seq: message.sequence });
  };

  /** One connection of a gateway's. Bytes keep their order in each direction. */
  interface Line {
    broken: boolean;
    /** Nothing passes before. */
    stalledUntil: number;
    /** When the last byte of each direction arrives. */
    lastIn: number;
    lastOut: number;
    breakUp(): void;
  }

  const connect: SimulatedLog['connect'] = (owner, events) => {
    let closed = false;
    let line: Line | undefined;
    let onReply: Parameters<OpenLogWire>[0] = () => undefined;
    /** Fails what waits for a PONG. */
    let flushes = new Set<(error: Error) => void>();

    const open = (): void => {
      if (closed || !owner.alive) return;
      if (!up || world.chance(0.1)) {
        owner.deliver(200 + random() * 800, open);
        return;
      }
      const mine: Line = {
        broken: false,
        stalledUntil: 0,
        lastIn: 0,
        lastOut: 0,
        breakUp() {
          if (mine.broken) return;
          mine.broken = true;
          lines.delete(mine);
          // The other end notices soon, or only when its PINGs go unanswered.
          owner.deliver(world.chance(0.2) ? 4_000 + random() * 20_000 : random() * 50, () => {
            if (line !== mine) return;
            line = undefined;
            const failed = flushes;
            flushes = new Set();
            for (const fail of failed) fail(new Error('disconnected'));
            world.trace?.(owner.name, 'has lost the log');
            events.onDown();
            owner.deliver(50 + random() * 1_000, open);
          });
        },
      };
      line = mine;
      lines.add(mine);
      world.trace?.(owner.name, 'has the log');
      events.onUp(openWire);
    };

    const arrive = (mine: Line, direction: 'lastIn' | 'lastOut'): number => {
      const at = Math.max(mine[direction], time.now + world.delay(), mine.stalledUntil);
      mine[direction] = at;
      return at - time.now;
    };

    const openWire: OpenLogWire = (listen) => {
      onReply = listen;
      return {
        send(subject, token, payload) {
          const mine = line;
          // The library knows no better yet: the bytes go nowhere.
          if (mine === undefined || mine.broken) return;
          const data = Uint8Array.prototype.slice.call(payload);
          // What is under way when a line breaks, or its owner dies, may still arrive.
          const survives = world.random() < 0.5;
          time.after(arrive(mine, 'lastIn'), () => {
            if (!up || (mine.broken && !survives)) return;
            const reply = write(subject, data);
            if (mine.broken || world.chance(0.01)) return;
            owner.deliver(arrive(mine, 'lastOut'), () => {
              if (line !== mine || mine.broken) return;
              if (reply === 'no responders') {
                onReply(token, { data: new Uint8Array(), headers: { code: 503 } as never, string: () => '' });
              } else onReply(token, { data: reply, headers: undefined as never, string: () => decoder.decode(reply) });
            });
          });
        },
        flush: () =>
          new Promise((resolve, reject) => {
            const mine = line;
            flushes.add(reject);
            if (mine === undefined || mine.broken) return;
            time.after(arrive(mine, 'lastIn'), () => {
              if (!up || mine.broken) return;
              owner.deliver(arrive(mine, 'lastOut'), () => {
                if (line === mine && !mine.broken) {
                  flushes.delete(reject);
                  resolve();
                }
              });
            });
          }),
        close() {
          onReply = () => undefined;
        },
      };
    };

    owner.onDeath(() => {
      closed = true;
      if (line === undefined) return;
      line.broken = true;
      lines.delete(line);
    });
    owner.deliver(random() * 5, open);
    return {
      close() {
        closed = true;
      },
    };
  };

  const cutLines = (): void => {
    world.trace?.('log', 'loses its lines');
    for (const line of [...lines]) line.breakUp();
    for (const listen of breakListeners) listen();
  };

  const log: SimulatedLog = {
    get up() {
      return up;
    },
    shards: options.shards,
    history,
    stream(shard) {
      const stream = streams[shard];
      if (!up) throw new LogDown('the log is down');
      if (stream === undefined) throw new LogDown('stream not found');
      return stream;
    },
    get lossy() {
      return lossy;
    },
    peek: (shard) => streams[shard],
    connect,
    ensureStreams() {
      if (!up) throw new LogDown('the log is down');
      return Array.from({ length: options.shards }, (_, shard) => streams[shard] ?? make(shard));
    },
    purge(shard, upTo) {
      const stream = log.stream(shard);
      let gone = 0;
      while ((stream.messages[gone]?.sequence ?? Number.POSITIVE_INFINITY) <= upTo) {
        stream.bytes -= (stream.messages[gone] as StoredMessage).data.length;
        gone++;
      }
      if (gone === 0) return;
      stream.messages = stream.messages.slice(gone);
      stream.first = stream.messages[0]?.sequence ?? stream.last + 1;
      world.trace?.('log', `trims ${stream.generation} up to ${upTo}`);
    },
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
    rewind() {
      let lost = false;
      for (const stream of streams) {
        if (stream === undefined || stream.synced >= stream.last) continue;
        lost = true;
        lossy = true;
        world.trace?.('log', `forgets ${stream.generation} from ${stream.synced + 1} to ${stream.last}`);
        for (const message of stream.messages) message.forgotten ||= message.sequence > stream.synced;
        stream.messages = stream.messages.filter((message) => !message.forgotten);
        stream.last = Math.max(stream.synced, stream.first - 1);
        stream.bytes = stream.messages.reduce((sum, message) => sum + message.data.length, 0);
      }
      return lost;
    },
    remove(shard) {
      world.trace?.('log', `an operator removes stream ${shard}`);
      lossy = true;
      for (const message of streams[shard]?.messages ?? []) message.forgotten = true;
      streams[shard] = undefined;
    },
    cutLines,
    stallLines(ms) {
      world.trace?.('log', `lines stall for ${Math.round(ms)} ms`);
      for (const line of lines) if (random() < 0.6) line.stalledUntil = time.now + ms;
    },
    onWritten: (listen) => void writtenListeners.push(listen),
    onBreak: (listen) => void breakListeners.push(listen),
  };
  // Leaders change, and their clocks differ.
  skew = world.chance(0.3) ? (random() - 0.5) * 4_000 : 0;
  return log;
}
