/**
 * A client that begins its next call as soon as it has read the end of an answer, as okhttp and grpc-go do, and holds all of its connection's
 * places. In a process of its own, so that it reacts while the gateway's event loop is busy. Arguments: port, calls, and words:
 * `resets` when it resets a call whose answer came before the end of its request, as grpc-go does, and `tls`.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { FrameSplitter, flag } from '../../lib/testing/h2-frames.js';
import { frame, frameType, header, preface, word } from './raw-http2.js';

/** What is seen of the calls. */
export interface SeenEagerly {
  readonly answered: number;
  /** Streams that were reset with an error, and the end of the connection, with their codes. */
  readonly faults: readonly string[];
}

const places = 256;
const [, , port = '', calls = '', ...words] = process.argv;
const head = Buffer.concat(
  Object.entries({
    ':method': 'POST',
    ':scheme': 'http',
    ':authority': 'a',
    ':path': '/sluice.ingest.v1.IngestService/Publish',
    'content-type': 'application/grpc',
    authorization: 'Bearer wrong',
  }).map(([name, value]) => header(name, value)),
);
const to = { port: Number(port), host: '127.0.0.1' };
const socket = words.includes('tls')
  ? connectTls({ ...to, ALPNProtocols: ['h2'], rejectUnauthorized: false })
  : connect(to);
const splitter = new FrameSplitter();
const faults: string[] = [];
let begun = 0;
let answered = 0;

/** A call whose request does not end. */
const begin = (): Buffer => frame(frameType.headers, flag.endHeaders, 2 * begun++ + 1, head);

function answerTo(type: number, flags: number, stream: number, payload: Buffer): Buffer[] {
  const ends = (flags & flag.endStream) !== 0;
  if (type === frameType.settings && (flags & flag.ack) === 0) {
    const first = begun === 0 ? Array.from({ length: places }, begin) : [];
    return [frame(frameType.settings, flag.ack, 0), ...first];
  }
  if (type === frameType.goaway) faults.push(`goaway ${payload.readUInt32BE(4)} ${payload.subarray(8)}`);
  if (type === frameType.reset && payload.readUInt32BE(0) !== 0) faults.push(`reset ${payload.readUInt32BE(0)}`);
  else if (!ends || (type !== frameType.headers && type !== frameType.data)) return [];
  else answered++;
  const reset = words.includes('resets') ? [frame(frameType.reset, 0, stream, word(0))] : [];
  return begun < Number(calls) ? [...reset, begin()] : reset;
}

socket.on('error', () => {});
socket.on('data', (chunk) => {
  const out: Buffer[] = [];
  splitter.push(chunk, (type, flags, stream, payload) => {
    out.push(...answerTo(type, flags, stream, Buffer.from(payload)));
  });
  if (out.length > 0) socket.write(Buffer.concat(out));
  if (answered + faults.length >= Number(calls)) socket.destroy();
});
socket.write(Buffer.concat([preface, frame(frameType.settings, 0, 0)]));
const timer = setTimeout(() => socket.destroy(), 20_000);
await once(socket, 'close');
clearTimeout(timer);
process.send?.({ answered, faults } satisfies SeenEagerly);
process.disconnect?.();
