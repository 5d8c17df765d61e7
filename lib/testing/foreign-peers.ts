/**
 * What a client may meet in the place of a gateway: servers of other protocols, proxies that answer themselves, peers that break off half-way.
 * Each listens on a port that the test chooses, and answers every connection the same way.
 */
import { randomBytes } from 'node:crypto';
import { constants, createServer as createHttp2Server, type ServerHttp2Stream } from 'node:http2';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';

export interface ForeignPeer {
  readonly name: string;
  /** How the client calls it. */
  readonly scheme: 'http' | 'https';
  /** Serves one connection. With `https`, it does the TLS itself. */
  readonly serve: (socket: Socket) => void;
}

interface Certificate {
  readonly key: string;
  readonly cert: string;
}

const frame = (type: number, flags: number, stream: number, payload: Buffer, length = payload.length): Buffer => {
  const head = Buffer.alloc(9);
  head.writeUIntBE(length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
};
const type = { data: 0, headers: 1, reset: 3, settings: 4, goAway: 7 } as const;
const settings = frame(type.settings, 0, 0, Buffer.alloc(0));
const noWindow = frame(type.settings, 0, 0, Buffer.from([0, 4, 0, 0, 0, 0]));
/** HPACK: `:status: 200` and `content-type: application/grpc`. */
const grpcHeaders = Buffer.concat([Buffer.from([0x88, 0x0f, 0x10, 16]), Buffer.from('application/grpc')]);
const uint32 = (...values: number[]): Buffer => {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt32BE(value, 4 * i);
  return bytes;
};
const goAway = (code: number): Buffer => frame(type.goAway, 0, 0, uint32(0, code));

/** Writes when the client has spoken. */
const answer =
  (text: string | (() => Buffer), then: 'end' | 'reset' | 'stay' = 'end') =>
  (socket: Socket): void => {
    socket.once('data', () => {
      socket.write(typeof text === 'string' ? text : text());
      if (then === 'end') socket.end();
      else if (then === 'reset') socket.resetAndDestroy();
    });
  };
/** Writes before the client has spoken. */
const banner =
  (bytes: () => Buffer | string) =>
  (socket: Socket): void => {
    socket.write(bytes());
  };
const http1 = (status: string): string =>
  `HTTP/1.1 ${status}\r\ncontent-type: text/html\r\ncontent-length: 27\r\nconnection: close\r\n\r\n<html><h1>${status.slice(0, 3)}</h1></html>`;
/** Speaks HTTP/2 by hand: settings at once, `bytes` when the client has opened its stream. */
const http2Bytes =
  (bytes: () => Buffer, then: 'end' | 'reset' | 'stay', first: Buffer = settings) =>
  (socket: Socket): void => {
    socket.write(first);
    socket.once('data', () => {
      setTimeout(() => {
        socket.write(bytes());
        if (then === 'end') socket.end();
        else if (then === 'reset') setTimeout(() => socket.resetAndDestroy(), 5);
      }, 5);
    });
  };

/** A real HTTP/2 server that is no gateway. */
function http2Server(respond: (stream: ServerHttp2Stream) => void): (socket: Socket) => void {
  const server = createHttp2Server();
  server.on('stream', (stream) => {
    stream.on('error', () => {});
    respond(stream);
  });
  server.on('sessionError', () => {});
  return (socket) => void server.emit('connection', socket);
}
const html = (status: number): ((socket: Socket) => void) =>
  http2Server((stream) => {
    stream.respond({ ':status': status, 'content-type': 'text/html' });
    stream.end(`<html><h1>${status}</h1></html>`);
  });
const grpcStatus = (code: string): ((socket: Socket) => void) =>
  http2Server((stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'grpc-status': code }, { endStream: true });
  });
const grpcBody = (body: Buffer): ((socket: Socket) => void) =>
  http2Server((stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
    stream.end(body);
  });
const reset = (code: number): ((socket: Socket) => void) => http2Server((stream) => stream.close(code));

/** TLS, and then what `serve` does. */
function overTls(certificate: Certificate, protocols: readonly string[], serve: (socket: TLSSocket) => void) {
  const server = createTlsServer({ ...certificate, ALPNProtocols: [...protocols] }, (socket) => {
    socket.on('error', () => {});
    serve(socket);
  });
  server.on('tlsClientError', () => {});
  return (socket: Socket): void => void server.emit('connection', socket);
}

/** @param trusted the client trusts it; @param untrusted the client does not */
export function foreignPeers(trusted: Certificate, untrusted: Certificate): readonly ForeignPeer[] {
  const plain: Record<string, ForeignPeer['serve']> = {
    'HTTP/1.1 that answers 400': answer(http1('400 Bad Request')),
    'HTTP/1.1 that answers 403': answer(http1('403 Forbidden')),
    'HTTP/1.1 that answers 502': answer(http1('502 Bad Gateway')),
    'HTTP/1.1 that answers 503 and stays': answer(http1('503 Service Unavailable'), 'stay'),
    'an SSH server': banner(() => 'SSH-2.0-OpenSSH_9.6\r\n'),
    'an SMTP server': (socket) => {
      socket.write('220 mail.example ESMTP\r\n');
      socket.on('data', () => socket.write('500 5.5.1 Command unrecognized\r\n'));
    },
    'garbage at once': banner(() => randomBytes(4_096)),
    'garbage as an answer': answer(() => randomBytes(4_096)),
    'a peer that closes at once': (socket) => void socket.end(),
    'a peer that resets at once': (socket) => void socket.resetAndDestroy(),
    'a peer that resets when it is spoken to': answer('', 'reset'),
    'a peer that never speaks': () => {},
    'HTTP/2 settings, then garbage': http2Bytes(() => randomBytes(4_096), 'stay'),
    'HTTP/2 without a window': http2Bytes(() => Buffer.alloc(0), 'stay', noWindow),
    'HTTP/2 that says GOAWAY at once': banner(() => Buffer.concat([settings, goAway(0)])),
    'HTTP/2 that says GOAWAY and closes': http2Bytes(() => goAway(0), 'end'),
    'HTTP/2 that says GOAWAY with an error': http2Bytes(() => goAway(constants.NGHTTP2_ENHANCE_YOUR_CALM), 'end'),
    'HTTP/2 that ends within HEADERS': http2Bytes(() => frame(type.headers, 4, 1, grpcHeaders, 100), 'end'),
    'HTTP/2 that resets within HEADERS': http2Bytes(() => frame(type.headers, 4, 1, grpcHeaders, 100), 'reset'),
    'HTTP/2 that ends within DATA': http2Bytes(
      () => Buffer.concat([frame(type.headers, 4, 1, grpcHeaders), frame(type.data, 0, 1, Buffer.alloc(20), 1_000)]),
      'end',
    ),
    'HTTP/2 that resets within DATA': http2Bytes(
      () => Buffer.concat([frame(type.headers, 4, 1, grpcHeaders), frame(type.data, 0, 1, Buffer.alloc(20), 1_000)]),
      'reset',
    ),
    'HTTP/2 with HTML and 200': html(200),
    'HTTP/2 with HTML and 404': html(404),
    'HTTP/2 with HTML and 502': html(502),
    'gRPC headers and nothing more': http2Server((stream) => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
    }),
    'gRPC without a status': grpcBody(Buffer.alloc(0)),
    'gRPC with a message that is none': grpcBody(Buffer.from([0, 0, 0, 0, 3, 255, 255, 255])),
    'gRPC with half a message': grpcBody(Buffer.from([0, 0, 0, 1, 0, 1, 2])),
    'gRPC with an endless message': grpcBody(Buffer.from([0, 255, 255, 255, 255, 1])),
    'gRPC with a compressed message': grpcBody(Buffer.from([1, 0, 0, 0, 3, 1, 2, 3])),
    'gRPC with trailers only': grpcStatus('13'),
    'gRPC with OK and no message': grpcStatus('0'),
    'gRPC with a status that is none': grpcStatus('teapot'),
    'RST_STREAM with REFUSED_STREAM': reset(constants.NGHTTP2_REFUSED_STREAM),
    'RST_STREAM with INTERNAL_ERROR': reset(constants.NGHTTP2_INTERNAL_ERROR),
    'RST_STREAM with CANCEL': reset(constants.NGHTTP2_CANCEL),
    'RST_STREAM with NO_ERROR': reset(constants.NGHTTP2_NO_ERROR),
    'RST_STREAM with HTTP_1_1_REQUIRED': reset(constants.NGHTTP2_HTTP_1_1_REQUIRED),
    'a TLS server': overTls(trusted, ['h2'], () => {}),
  };
  const secure: Record<string, ForeignPeer['serve']> = {
    'a server without TLS': html(200),
    'a TLS server that stops half-way': answer(() => Buffer.from([22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3]), 'stay'),
    'a TLS server that closes half-way': answer(() => Buffer.from([22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3])),
    'a TLS server that resets half-way': answer(() => Buffer.from([22, 3, 3, 0, 122, 2, 0]), 'reset'),
    'a TLS alert': answer(() => Buffer.from([21, 3, 3, 0, 2, 2, 40])),
    'a TLS peer that never speaks': () => {},
    'a certificate that is not trusted': overTls(untrusted, ['h2'], () => {}),
    'TLS with HTTP/1.1 only': overTls(trusted, ['http/1.1'], answer(http1('400 Bad Request'))),
    'TLS without ALPN': overTls(trusted, [], answer(http1('400 Bad Request'))),
    'TLS, then garbage': overTls(
      trusted,
      ['h2'],
      banner(() => randomBytes(4_096)),
    ),
    'TLS, then HTML and 404': overTls(trusted, ['h2'], html(404)),
    'TLS that ends at once': overTls(trusted, ['h2'], (socket) => void socket.end()),
    'TLS that is cut': overTls(trusted, ['h2'], (socket) => void socket.destroy()),
  };
  return [
    ...Object.entries(plain).map(([name, serve]) => ({ name, scheme: 'http' as const, serve })),
    ...Object.entries(secure).map(([name, serve]) => ({ name, scheme: 'https' as const, serve })),
  ];
}

export interface Listening {
  readonly port: number;
  /** From now on `serve` answers; connections that are open are destroyed. */
  become(serve: (socket: Socket) => void): void;
  close(): Promise<void>;
}

/** A port whose server can be another one from one moment to the next. */
export async function listen(serve: (socket: Socket) => void): Promise<Listening> {
  const sockets = new Set<Socket>();
  let current = serve;
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
    current(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const disconnect = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    become(next) {
      current = next;
      disconnect();
    },
    close() {
      disconnect();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
