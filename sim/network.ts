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

export function createNetwork(world: World): Network {
  const { time, random } = world;
  const open = new Set<Connection>();

  return {
    connect<Up, Down>(client: Process, server: () => Server<Up, Down> | undefined, receiver: Receiver<Down>): Pipe<Up> {
      let peer: Server<Up, Down> | undefined;
      let peerReceiver: Receiver<Up> | undefined;
      let clientGone = false;
      let serverGone = false;
      /** The server has read the client's end. */
      let upRead = false;
      const up: Direction = { last: 0, ended: false };
      const down: Direction = { last: 0, ended: false };
      const connection: Connection = { broken: false, stalledUntil: 0, cut: () => breakUp() };
      open.add(connection);

      const arriveIn = (direction: Direction): number => {
        direction.last = Math.max(direction.last, time.now + world.delay(), connection.stalledUntil);
        return direction.last - time.now;
      };
      /** How long an end takes to notice: at once, late, or (never is a time-out of its own) after minutes. */
      const notice = (): number => (world.chance(0.2) ? 1_000 + random() * 120_000 : random() * 20);

      const tellClient = (broken: boolean): void => {
        if (clientGone) return;
        clientGone = true;
        receiver.onEnd(broken);
      };
      const tellServer = (broken: boolean): void => {
        if (serverGone) return;
        serverGone = true;
        peerReceiver?.onEnd(broken);
      };
      const breakUp = (): void => {
        if (connection.broken) return;
        connection.broken = true;
        open.delete(connection);
        client.deliver(notice(), () => tellClient(true));
        peer?.process.deliver(notice(), () => tellServer(true));
      };
      const toClient: Pipe<Down> = {
        send(message) {
          if (connection.broken) return;
          // What is under way when the connection breaks may arrive, or not.
          const lucky = random() < 0.4;
          client.deliver(arriveIn(down), () => {
            if (clientGone || (connection.broken && !lucky)) return;
            receiver.onMessage(message);
          });
        },
        end() {
          if (connection.broken || down.ended) return;
          down.ended = true;
          client.deliver(arriveIn(down), () => {
            if (!connection.broken) tellClient(false);
          });
        },
        reset: breakUp,
      };

      client.onDeath(breakUp);
      time.after(arriveIn(up), () => {
        peer = connection.broken ? undefined : server();
        if (peer === undefined) {
          breakUp();
          return;
        }
        const { process, accept } = peer;
        process.onDeath(breakUp);
        process.deliver(0, () => {
          if (!connection.broken) peerReceiver = accept(toClient);
        });
      });

      return {
        send(message) {
          if (connection.broken || clientGone) return;
          const lucky = random() < 0.4;
          time.after(arriveIn(up), () => {
            if (peer === undefined || (connection.broken && !lucky)) return;
            // It is in the socket of the process, which reads it when it can.
            peer.process.deliver(0, () => {
              if (!serverGone && !upRead) peerReceiver?.onMessage(message);
            });
          });
        },
        end() {
          if (connection.broken || up.ended) return;
          up.ended = true;
          time.after(arriveIn(up), () => {
            if (connection.broken) return;
            peer?.process.deliver(0, () => {
              if (serverGone || upRead) return;
              upRead = true;
              peerReceiver?.onEnd(false);
            });
          });
        },
        reset() {
          clientGone = true;
          if (connection.broken) return;
          connection.broken = true;
          open.delete(connection);
          // After what was sent before, as far as that arrives.
          time.after(arriveIn(up), () => peer?.process.deliver(0, () => tellServer(true)));
        },
      };
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
