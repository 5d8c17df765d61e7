/**
 * A process that has nothing but clients, two for each peer: no handler for what is thrown or rejected without one, nothing else that keeps it
 * alive. It says on stdout, a line of JSON each, what it hears.
 *
 * The first client of a peer gives up after a while. The second goes on until the peer's name comes as a line on stdin, and then until everything
 * is delivered. Argument: {key, events, peers: [{name, baseUrl}]}, as JSON.
 */
import { createInterface } from 'node:readline';
import { EventType } from '../../gen/sluice/event/v1/event_pb.js';
import { SluiceClient } from '../client.js';

const { key, events, peers } = JSON.parse(process.argv[2] as string) as {
  key: string;
  events: number;
  peers: { name: string; baseUrl: string }[];
};
const say = (line: object): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

function start(peer: string, client: string, baseUrl: string): SluiceClient {
  const started = new SluiceClient({
    baseUrl,
    key,
    lingerMs: 1,
    batchEvents: 10,
    retryBaseMs: 20,
    retryCapMs: 100,
    connectTimeoutMs: 1_000,
    refusalGraceMs: 100,
    onError({ code, message }) {
      say({ peer, client, heard: code, message });
      if (client === 'impatient') return Promise.reject(new Error('a fault of the host, later'));
      throw new Error('a fault of the host');
    },
    onRejected({ code }) {
      say({ peer, client, rejected: code });
      throw new Error('a fault of the host');
    },
  });
  for (let i = 0; i < events; i++) started.track({ type: EventType.CLICK, name: `${client} ${i}` });
  return started;
}

const patient = new Map(peers.map(({ name, baseUrl }) => [name, start(name, 'patient', baseUrl)]));
for (const { name, baseUrl } of peers) {
  void start(name, 'impatient', baseUrl)
    .close({ timeoutMs: 1_500 })
    .then((report) => say({ peer: name, client: 'impatient', ...report }));
}
createInterface({ input: process.stdin }).on('line', async (name) => {
  const client = patient.get(name);
  patient.delete(name);
  if (patient.size === 0) process.stdin.destroy();
  say({ peer: name, client: 'patient', ...(await client?.close({ timeoutMs: 20_000 })) });
});
