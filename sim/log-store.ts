/** What the simulated JetStream server stores: a stream per shard, what of it is on the disk, and what each ever held. */
import { jetStreamErrors } from '../lib/jetstream-errors.js';
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

export interface LogOptions {
  readonly shards: number;
  readonly maxBytes: number;
  /** How far the disk lags behind, ms; 0: each write is synced before it is acknowledged. */
  readonly syncMs: number;
}

export interface LogStore {
  /** By shard; undefined where there is none. */
  readonly streams: readonly (Stream | undefined)[];
  /** All there ever were, with all that they ever held. */
  readonly history: readonly { readonly stream: Stream; readonly messages: readonly StoredMessage[] }[];
  /** It has lost something, or an operator has removed something. */
  readonly lossy: boolean;
  /** Makes the stream of a shard. */
  make(shard: number): Stream;
  /** Writes a message, or says why not. */
  write(subject: string, data: Uint8Array): Uint8Array | 'no responders';
  purge(stream: Stream, upTo: number): void;
  /** Forgets what was not on the disk. Returns whether something was. */
  rewind(): boolean;
  remove(shard: number): void;
}

const encoder = new TextEncoder();
/** `ev.<shard>.<tenant>` */
const subjectShard = (subject: string): number => Number(subject.split('.')[1]);
const answer = (value: object): Uint8Array => encoder.encode(JSON.stringify(value));

/** @param onWritten called when something is written, by shard */
export function createLogStore(world: World, options: LogOptions, onWritten: (shard: number) => void): LogStore {
  const { time, random } = world;
  const streams: (Stream | undefined)[] = [];
  const history: { stream: Stream; messages: StoredMessage[] }[] = [];
  let made = 0;
  let lossy = false;
  /** The server's clock against the world's, ms. Leaders change, and their clocks differ. */
  const skew = world.chance(0.3) ? (random() - 0.5) * 4_000 : 0;

  function make(shard: number): Stream {
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
  }

  /** The disk follows. */
  const sync = (stream: Stream, { sequence }: StoredMessage): void => {
    if (options.syncMs === 0) {
      stream.synced = sequence;
      return;
    }
    time.after(random() * options.syncMs, () => {
      if (streams[stream.shard] !== stream || stream.last < sequence) return;
      stream.synced = Math.max(stream.synced, sequence);
    });
  };

  function write(subject: string, data: Uint8Array): Uint8Array | 'no responders' {
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
      timeMs: Math.floor(world.startMs + time.now + skew),
      data,
      forgotten: false,
    };
    stream.messages.push(message);
    stream.bytes += data.length;
    history.find((known) => known.stream === stream)?.messages.push(message);
    world.trace?.('log', `writes ${stream.generation}/${message.sequence} (${data.length} bytes)`);
    sync(stream, message);
    onWritten(stream.shard);
    return answer({ stream: `EV_${stream.shard}`, seq: message.sequence });
  }

  return {
    streams,
    history,
    get lossy() {
      return lossy;
    },
    make,
    write,
    purge(stream, upTo) {
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
  };
}
