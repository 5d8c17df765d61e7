/** Sends requests by node:http2, several at a time on one session. */
import { type ClientHttp2Session, connect, constants, type OutgoingHttpHeaders } from 'node:http2';
import type { Target } from '../wire/sockets.js';
import { mayStayOpen, type RequestOutcome, Wait } from './outcome.js';
import type { Plan } from './plan.js';

export class NodeConnection {
  count = 0;
  open = 0;
  over = false;

  private constructor(private readonly session: ClientHttp2Session) {}

  static open({ port, from }: Target): Promise<NodeConnection | undefined> {
    const session = connect(`http://127.0.0.1:${port}`, { localAddress: from } as object);
    const connection = new NodeConnection(session);
    session.on('error', () => {});
    session.on('goaway', () => {
      connection.over = true;
    });
    return new Promise((resolve) => {
      session.once('connect', () => resolve(connection));
      session.once('close', () => {
        connection.over = true;
        resolve(undefined);
      });
    });
  }

  close(): void {
    this.session.destroy();
  }

  send({ random, request, valid }: Plan, authorization: string): Promise<RequestOutcome> {
    this.count++;
    const headers: Record<string, string | string[]> = {
      ':method': request.method,
      ':path': request.path,
      authorization,
    };
    for (const [name, value] of request.headers) {
      const known = headers[name];
      headers[name] = known === undefined ? value : [known, value].flat();
    }
    let stream: ReturnType<ClientHttp2Session['request']>;
    try {
      stream = this.session.request(headers as OutgoingHttpHeaders, { endStream: request.body.length === 0 });
    } catch {
      return Promise.resolve({ fate: 'unsendable' });
    }
    this.open++;
    return new Promise((resolve) => {
      let status = '';
      let grpcStatus: string | undefined;
      const chunks: Buffer[] = [];
      let settled = false;
      const settle = (fate: RequestOutcome['fate'], waitedMs = wait.ms): void => {
        if (settled) return;
        settled = true;
        this.open--;
        wait.cancel();
        if (!stream.closed) stream.close(constants.NGHTTP2_CANCEL);
        resolve({ fate, answer: { status, grpcStatus, body: Buffer.concat(chunks) }, waitedMs });
      };
      const wait = new Wait(
        () => {
          if (status !== '' && mayStayOpen(request.path)) settle('answered', 0);
        },
        () => settle(status === '' ? 'silent' : 'unended'),
      );
      stream.on('response', (all) => {
        status = String(all[':status']);
        grpcStatus = all['grpc-status'] as string | undefined;
      });
      stream.on('trailers', (all) => {
        grpcStatus = all['grpc-status'] as string | undefined;
      });
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('end', () => {
        if (status !== '') settle('answered');
      });
      stream.on('error', () => {});
      stream.on('close', () => settle(status !== '' ? 'answered' : this.session.closed ? 'ended' : 'reset'));
      const givesUp = valid === undefined && random() < 0.03;
      stream.once('finish', () => {
        if (!settled) wait.begin();
      });
      if (request.body.length === 0) return;
      if (!givesUp) return void stream.end(request.body);
      stream.write(request.body.subarray(0, request.body.length >> 1), () => settle('given up'));
    });
  }
}
