/** grpc-go and connect-go: one program, built with Go. */
import { join } from 'node:path';
import { libraryCases } from '../cases.js';
import { need, root, workshop } from '../workshop.js';
import { type ForeignClient, runProgram } from './client.js';

const buf = join(root, 'node_modules', '.bin', 'buf');

function createGoClient(name: string, about: string): ForeignClient {
  let folder = '';
  return {
    name,
    about,
    cases: libraryCases,
    async prepare(cache, say) {
      const go = need('go', 'Debian: golang');
      const shop = await workshop(cache, 'go', async ({ sh }) => {
        say('generating and compiling the Go clients …');
        await sh(buf, 'generate', 'proto', '--path', 'proto/sluice', '--exclude-path', 'proto/sluice/log');
        await sh(go, 'build', '-o', 'client', '.');
      });
      folder = shop.folder;
    },
    run: (task, listener) => runProgram([join(folder, 'client')], folder, task, listener),
  };
}

export const goClients: readonly ForeignClient[] = [
  createGoClient('grpc-go', 'Go, google.golang.org/grpc'),
  createGoClient('connect-go', "Go, connectrpc.com/connect in Connect's protocol"),
  createGoClient('connect-go-grpc', "Go, connectrpc.com/connect in gRPC's protocol"),
];
