/**
 * Connections between clients and gateways, as TCP gives them: bytes keep their order, and when a connection breaks no side
 * knows what of those under way arrived. An end may learn of the break at once, late, or only by its own time-out.
 */
import type { Process } from './process.js';
import type { World } from './world.js';

/** One end of a connection, as the other end's messages reach it. */
export interface Receiver<T> {
  onMessage(message: T): void;
  /** The peer has closed its side in order, or the connection is broken. */
  onEnd(broken: boolean): void;
}

export interface Pipe<T> {
  send(message: T): void;
  /** Ends this direction in order; or all of it, at once. */
  end(): void;
  reset(): void;
}

/** A process that takes connections. */
export interface Server<Up, Down> {
  readonly process: Process;
  accept(toClient: Pipe<Down>): Receiver<Up>;
}

export interface Network {
  /**
   * Connects a client with the gateway that serves when its first byte arrives.
   * @param server undefined when no server listens
   */
  connect<Up, Down>(client: Process, server: () => Server<Up, Down> | undefined, receiver: Receiver<Down>): Pipe<Up>;
  /** Breaks most connections, or lets nothing pass on some for a while. */
  cut(): void;
  stall(ms: number): void;
}

interface Direction {
  /** When its last byte arrives. */
  last: number;
  ended: boolean;
}

interface Connection {
  broken: boolean;
  stalledUntil: number;
  cut(): void;
}

/** A connection, with what each end knows of it. */
interface Link<Up, Down> {
  readonly world: World;
  readonly connection: Connection;
  readonly client: Process;
  readonly receiver: Receiver<Down>;
  readonly up: Direction;
  readonly down: Direction;
  /** The gateway at the other end, once the first byte has arrived, and what reads there. */
  peer: Server<Up, Down> | undefined;
  peerReceiver: Receiver<Up> | undefined;
  /** The end reads no more. */
  clientGone: boolean;
  serverGone: boolean;
  /** The server has read the client's end. */
  upRead: boolean;
}

/** When the next byte of a direction arrives, in ms from now. */
function arrival(world: World, connection: Connection, direction: Direction): number {
  direction.last = Math.max(direction.last, world.time.now + world.delay(), connection.stalledUntil);
  return direction.last - world.time.now;
}

function tellClient<Up, Down>(link: Link<Up, Down>, broken: boolean): void {
  if (link.clientGone) return;
  link.clientGone = true;
  link.receiver.onEnd(broken);
}

function tellServer<Up, Down>(link: Link<Up, Down>, broken: boolean): void {
  if (link.serverGone) return;
  link.serverGone = true;
  link.peerReceiver?.onEnd(broken);
}

/** What the server sends with. */
function downPipe<Up, Down>(link: Link<Up, Down>): Pipe<Down> {
  const { world, connection, client, receiver, down } = link;
  return {
    send(message) {
      if (connection.broken) return;
      // What is under way when the connection breaks may arrive, or not.
      const lucky = world.random() < 0.4;
      client.deliver(arrival(world, connection, down), () => {
        if (link.clientGone || (connection.broken && !lucky)) return;
        receiver.onMessage(message);
      });
    },
    end() {
      if (connection.broken || down.ended) return;
      down.ended = true;
      client.deliver(arrival(world, connection, down), () => {
        if (!connection.broken) tellClient(link, false);
      });
    },
    reset: connection.cut,
  };
}

/** What the client sends with. @param forget the network's part of a reset */
function upPipe<Up, Down>(link: Link<Up, Down>, forget: () => void): Pipe<Up> {
  const { world, connection, up } = link;
  const { time } = world;
  return {
    send(message) {
      if (connection.broken || link.clientGone) return;
      const lucky = world.random() < 0.4;
      time.after(arrival(world, connection, up), () => {
        if (link.peer === undefined || (connection.broken && !lucky)) return;
        // It is in the socket of the process, which reads it when it can.
        link.peer.process.deliver(0, () => {
          if (!link.serverGone && !link.upRead) link.peerReceiver?.onMessage(message);
        });
      });
    },
    end() {
      if (connection.broken || up.ended) return;
      up.ended = true;
      time.after(arrival(world, connection, up), () => {
        if (connection.broken) return;
        link.peer?.process.deliver(0, () => {
          if (link.serverGone || link.upRead) return;
          link.upRead = true;
          link.peerReceiver?.onEnd(false);
        });
      });
    },
    reset() {
      link.clientGone = true;
      if (connection.broken) return;
      connection.broken = true;
      forget();
      // After what was sent before, as far as that arrives.
      time.after(arrival(world, connection, up), () => link.peer?.process.deliver(0, () => tellServer(link, true)));
    },
  };
}

export function createNetwork(world: World): Network {
  const { time, random } = world;
  const open = new Set<Connection>();
  /** How long an end takes to notice: at once, late, or (never is a time-out of its own) after minutes. */
  const notice = (): number => (world.chance(0.2) ? 1_000 + random() * 120_000 : random() * 20);

  return {
    connect<Up, Down>(client: Process, server: () => Server<Up, Down> | undefined, receiver: Receiver<Down>): Pipe<Up> {
      const breakUp = (): void => {
        if (connection.broken) return;
        connection.broken = true;
        open.delete(connection);
        client.deliver(notice(), () => tellClient(link, true));
        link.peer?.process.deliver(notice(), () => tellServer(link, true));
      };
      const connection: Connection = { broken: false, stalledUntil: 0, cut: breakUp };
      const link: Link<Up, Down> = {
        ...{ world, connection, client, receiver, peer: undefined, peerReceiver: undefined },
        up: { last: 0, ended: false },
        down: { last: 0, ended: false },
        ...{ clientGone: false, serverGone: false, upRead: false },
      };
      open.add(connection);
      client.onDeath(breakUp);
      time.after(arrival(world, connection, link.up), () => {
        const peer = connection.broken ? undefined : server();
        link.peer = peer;
        if (peer === undefined) {
          breakUp();
          return;
        }
        peer.process.onDeath(breakUp);
        peer.process.deliver(0, () => {
          if (!connection.broken) link.peerReceiver = peer.accept(downPipe(link));
        });
      });
      return upPipe(link, () => open.delete(connection));
    },
    cut() {
      world.trace?.('network', 'breaks connections');
      for (const connection of [...open]) if (random() < 0.7) connection.cut();
    },
    stall(ms) {
      world.trace?.('network', `lets nothing pass on some connections for ${Math.round(ms)} ms`);
      for (const connection of open) if (random() < 0.6) connection.stalledUntil = time.now + ms;
    },
  };
}
