/**
 * Sends batches over gRPC PublishStream on bare HTTP/2: some connections, some streams on each. A full gRPC client
 * would cost more CPU than the gateway that it measures.
 *
 * Honours what a client must: flow control, `Draining`, GOAWAY, failed batches, lost connections (with back-off).
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { FrameReader, readAnswer } from './grpc-answers.js';
import type { Sender, SenderEvents, Slot } from './sender.js';

export interface GrpcTarget {
  /** `http://127.0.0.1:7070` */
  readonly url: string;
  readonly key: string;
  readonly connections: number;
  /** Streams on each connection. */
  readonly streams: number;
}

interface Lane {
  stream: ClientHttp2Stream | undefined;
  /** Slot index → batch number of what has no answer yet. */
  readonly waiting: Map<number, number>;
  /** The stream's buffer is full: wait for 'drain'. */
  full: boolean;
  /** The gateway asked for no more on this stream. */
  draining: boolean;
}

/** Reconnects are this far apart at most. */
const longestBackoffMs = 2_000;
/** No connection for this long ends the run. */
const patienceMs = 60_000;

export function sendOverGrpc(target: GrpcTarget, events: SenderEvents): Sender {
  const links: { close(): Promise<void> }[] = [];
  const lanes: Lane[] = [];
  let closed = false;
  for (let i = 0; i < target.connections; i++) {
    const mine: Lane[] = [];
    for (let j = 0; j < target.streams; j++) {
      mine.push({ stream: undefined, waiting: new Map(), full: false, draining: false });
    }
    lanes.push(...mine);
    links.push(keepConnected(target, mine, events, () => closed));
  }

  /** The open lane with the fewest batches in flight. */
  const choose = (): Lane | undefined => {
    let best: Lane | undefined;
    for (const lane of lanes) {
      if (lane.stream === undefined || lane.full || lane.draining) continue;
      if (best === undefined || lane.waiting.size < best.waiting.size) best = lane;
    }
    return best;
  };

  return {
    ready: () => choose() !== undefined,
    send(slot: Slot): boolean {
      const best = choose();
      if (best?.stream === undefined) return false;
      best.waiting.set(slot.index, slot.number);
      if (!best.stream.write(slot.message.bytes)) best.full = true;
      return true;
    },
    async close() {
      closed = true;
      await Promise.all(links.map((link) => link.close()));
    },
  };
}

/** One connection with its streams, made again whenever it is lost. */
function keepConnected(
  target: GrpcTarget,
  lanes: readonly Lane[],
  events: SenderEvents,
  closed: () => boolean,
): { close(): Promise<void> } {
  let session: ClientHttp2Session | undefined;
  let failures = 0;
  let lastGood = performance.now();
  let timer: NodeJS.Timeout | undefined;

  const open = (): void => {
    if (closed()) return;
    const current = connect(target.url, { settings: { initialWindowSize: 1024 * 1024, enablePush: false } });
    session = current;
    let ended = false;
    const again = (reason: string): void => {
      if (ended) return;
      ended = true;
      // Not from within a callback of the session itself: node's HTTP/2 can then spin in native code.
      setImmediate(() => current.destroy());
      for (const lane of lanes) lose(lane, reason);
      if (closed()) return;
      if (performance.now() - lastGood > patienceMs) {
        events.failed(new Error(`no connection to ${target.url} for ${patienceMs / 1000} s: ${reason}`));
        return;
      }
      timer = setTimeout(open, Math.min(longestBackoffMs, 50 * 2 ** failures++) * (0.5 + Math.random() / 2));
    };
    current.on('error', (error) => again(error.message));
    current.on('close', () => again('connection closed'));
    current.on('goaway', () => {
      for (const lane of lanes) lane.draining = true;
      retire(current, lanes, again);
    });
    current.on('connect', () => {
      failures = 0;
      lastGood = performance.now();
      for (const lane of lanes) openStream(current, lane, again);
      events.writable();
    });
  };

  const openStream = (current: ClientHttp2Session, lane: Lane, again: (reason: string) => void): void => {
    const stream = current.request(
      {
        [constants.HTTP2_HEADER_METHOD]: 'POST',
        [constants.HTTP2_HEADER_PATH]: '/sluice.ingest.v1.IngestService/PublishStream',
        [constants.HTTP2_HEADER_CONTENT_TYPE]: 'application/grpc+proto',
        [constants.HTTP2_HEADER_TE]: 'trailers',
        [constants.HTTP2_HEADER_USER_AGENT]: 'sluice-bench/0.1.0',
        [constants.HTTP2_HEADER_AUTHORIZATION]: `Bearer ${target.key}`,
      },
      { endStream: false },
    );
    lane.stream = stream;
    lane.full = false;
    lane.draining = false;
    const frames = new FrameReader();
    let status = '';
    let statusMessage = '';
    const note = (headers: Record<string, unknown>) => {
      if (headers['grpc-status'] !== undefined) {
        status = String(headers['grpc-status']);
        statusMessage = String(headers['grpc-message'] ?? '');
      }
    };
    stream.on('response', (headers) => {
      note(headers);
      if (headers[':status'] !== 200) {
        events.failed(new Error(`the gateway answered with HTTP status ${headers[':status']}`));
      }
    });
    stream.on('trailers', note);
    stream.on('drain', () => {
      lane.full = false;
      events.writable();
    });
    stream.on('data', (chunk: Buffer) => {
      try {
        frames.push(chunk, (message) => answer(lane, message, () => retire(current, lanes, again)));
      } catch (error) {
        events.failed(error instanceof Error ? error : new Error(String(error)));
      }
    });
    stream.on('error', () => undefined); // 'close' follows and tells all
    stream.on('close', () => {
      if (lane.stream !== stream) return;
      lane.stream = undefined;
      // 16: the key is not valid; 12: no such method. No retry mends them.
      if (status === '16' || status === '12') {
        events.failed(new Error(`the gateway ended the stream: gRPC status ${status}, ${statusMessage}`));
      }
      again(status === '' ? 'stream closed' : `gRPC status ${status} ${statusMessage}`);
    });
  };

  const answer = (lane: Lane, message: Buffer, drain: () => void): void => {
    const read = readAnswer(message);
    if (read.kind === 'draining') {
      lane.draining = true;
      drain();
    } else if (read.kind === 'accepted' || read.kind === 'failed') {
      const { slot, number } = read.name;
      if (lane.waiting.get(slot) !== number) {
        events.failed(new Error('an answer names a batch that is not in flight on this stream'));
        return;
      }
      lane.waiting.delete(slot);
      if (read.kind === 'accepted') {
        events.outcome(slot, number, { kind: 'accepted', accepted: read.accepted, rejected: read.rejected });
      } else if (read.retryAfterMs === undefined) {
        events.outcome(slot, number, { kind: 'refused', reason: `${read.code} ${read.message}` });
      } else {
        events.outcome(slot, number, { kind: 'retry', afterMs: read.retryAfterMs, reason: read.message });
      }
      if (lane.draining) drain();
    }
  };

  /** Leaves a connection that is going away once it has answered what it can. */
  const retire = (current: ClientHttp2Session, all: readonly Lane[], again: (reason: string) => void): void => {
    for (const lane of all) lane.draining = true;
    if (session === current && all.every((lane) => lane.waiting.size === 0)) again('draining');
  };

  const lose = (lane: Lane, reason: string): void => {
    lane.stream = undefined;
    const lost = [...lane.waiting];
    lane.waiting.clear();
    for (const [slot, number] of lost) events.outcome(slot, number, { kind: 'retry', afterMs: 50, reason });
  };

  open();
  return {
    close: () => {
      clearTimeout(timer);
      const current = session;
      if (current === undefined || current.destroyed) return Promise.resolve();
      return new Promise((resolve) => {
        current.once('close', resolve);
        for (const lane of lanes) lane.stream?.end();
        // Streams end within a moment when nothing is in flight; a gateway that hangs is not waited for.
        setTimeout(() => current.destroy(), 200);
      });
    },
  };
}
