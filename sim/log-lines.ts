/** Lines of gateways to the log: connections on which they publish, and which are made again when they break. */
import type { OpenLogWire } from '../gateway/log/log-wire.js';
import type { Process } from './process.js';
import type { World } from './world.js';

export interface LineHandle {
  close(): void;
}

export interface LineEvents {
  onUp(openWire: OpenLogWire): void;
  onDown(): void;
}

/** The server at the other end. */
export interface LineServer {
  readonly up: boolean;
  /** Writes a message, and gives its answer. */
  write(subject: string, data: Uint8Array): Uint8Array | 'no responders';
}

export interface Lines {
  /** A line for a gateway, which is made again when it breaks. */
  connect(owner: Process, events: LineEvents): LineHandle;
  /** Breaks all. */
  cut(): void;
  /** Lets nothing pass on some for a while. */
  stall(ms: number): void;
}

/** One connection. Bytes keep their order in each direction. */
interface Line {
  broken: boolean;
  /** Nothing passes before. */
  stalledUntil: number;
  /** When the last byte of each direction arrives. */
  lastIn: number;
  lastOut: number;
  breakUp(): void;
}

/** What a gateway has of its lines. */
interface LineEnd {
  readonly owner: Process;
  /** The connection that is there, as far as the gateway knows. */
  current: Line | undefined;
  onReply: Parameters<OpenLogWire>[0];
  /** Fails what waits for a PONG. */
  flushes: Set<(error: Error) => void>;
}

const decoder = new TextDecoder();
const nothing = (): void => undefined;

/** When the next byte of a direction arrives, in ms from now. */
function arrival(world: World, line: Line, direction: 'lastIn' | 'lastOut'): number {
  const { now } = world.time;
  line[direction] = Math.max(line[direction], now + world.delay(), line.stalledUntil);
  return line[direction] - now;
}

/** What a gateway publishes with. */
function createWire(world: World, server: LineServer, end: LineEnd): OpenLogWire {
  const { time } = world;
  const { owner } = end;
  return (listen) => {
    end.onReply = listen;
    return {
      send(subject, token, payload) {
        const line = end.current;
        // The library knows no better yet: the bytes go nowhere.
        if (line === undefined || line.broken) return;
        const data = Uint8Array.prototype.slice.call(payload);
        // What is under way when a line breaks, or its owner dies, may still arrive.
        const survives = world.random() < 0.5;
        time.after(arrival(world, line, 'lastIn'), () => {
          if (!server.up || (line.broken && !survives)) return;
          const reply = server.write(subject, data);
          if (line.broken || world.chance(0.01)) return;
          owner.deliver(arrival(world, line, 'lastOut'), () => {
            if (end.current !== line || line.broken) return;
            if (reply === 'no responders') {
              end.onReply(token, { data: new Uint8Array(), headers: { code: 503 } as never, string: () => '' });
            } else {
              end.onReply(token, { data: reply, headers: undefined as never, string: () => decoder.decode(reply) });
            }
          });
        });
      },
      flush: () =>
        new Promise((resolve, reject) => {
          const line = end.current;
          end.flushes.add(reject);
          if (line === undefined || line.broken) return;
          time.after(arrival(world, line, 'lastIn'), () => {
            if (!server.up || line.broken) return;
            owner.deliver(arrival(world, line, 'lastOut'), () => {
              if (end.current !== line || line.broken) return;
              end.flushes.delete(reject);
              resolve();
            });
          });
        }),
      close() {
        end.onReply = nothing;
      },
    };
  };
}

export function createLines(world: World, server: LineServer): Lines {
  const { time, random } = world;
  const lines = new Set<Line>();

  function connect(owner: Process, events: LineEvents): LineHandle {
    const end: LineEnd = { owner, current: undefined, onReply: nothing, flushes: new Set() };
    const openWire = createWire(world, server, end);
    let closed = false;

    /** The gateway has noticed. */
    const lost = (line: Line): void => {
      if (end.current !== line) return;
      end.current = undefined;
      const failed = end.flushes;
      end.flushes = new Set();
      for (const fail of failed) fail(new Error('disconnected'));
      world.trace?.(owner.name, 'has lost the log');
      events.onDown();
      owner.deliver(50 + random() * 1_000, open);
    };

    const open = (): void => {
      if (closed || !owner.alive) return;
      if (!server.up || world.chance(0.1)) {
        owner.deliver(200 + random() * 800, open);
        return;
      }
      const line: Line = {
        broken: false,
        stalledUntil: 0,
        lastIn: 0,
        lastOut: 0,
        breakUp() {
          if (line.broken) return;
          line.broken = true;
          lines.delete(line);
          // The other end notices soon, or only when its PINGs go unanswered.
          owner.deliver(world.chance(0.2) ? 4_000 + random() * 20_000 : random() * 50, () => lost(line));
        },
      };
      end.current = line;
      lines.add(line);
      world.trace?.(owner.name, 'has the log');
      events.onUp(openWire);
    };

    owner.onDeath(() => {
      closed = true;
      if (end.current === undefined) return;
      end.current.broken = true;
      lines.delete(end.current);
    });
    owner.deliver(random() * 5, open);
    return {
      close() {
        closed = true;
      },
    };
  }

  return {
    connect,
    cut() {
      for (const line of [...lines]) line.breakUp();
    },
    stall(ms) {
      for (const line of lines) if (random() < 0.6) line.stalledUntil = time.now + ms;
    },
  };
}
