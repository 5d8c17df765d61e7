/** Every foreign client, in the order in which they run. */
import { browserClients } from './browser.js';
import type { ForeignClient } from './client.js';
import { curlClient } from './curl.js';
import { goClients } from './go.js';
import { grpcJsClient } from './grpc-js.js';
import { javaClients } from './java.js';
import { pageClients } from './page.js';
import { pythonClient } from './python.js';
import { rpcCurls } from './rpc-curls.js';
import { rustClient } from './rust.js';

export const foreignClients: readonly ForeignClient[] = [
  curlClient,
  ...rpcCurls,
  grpcJsClient,
  ...goClients,
  pythonClient,
  rustClient,
  ...javaClients,
  ...browserClients,
  ...pageClients,
];
