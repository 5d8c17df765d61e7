/** The client for Node. docs/client.md has its options. */
import { readFileSync } from 'node:fs';
import { EventType, SluiceClient } from '../sdk-gen/typescript/src/index.js';

const client = new SluiceClient({
  baseUrl: process.env.GATEWAY ?? 'http://127.0.0.1:7070',
  key: process.env.KEY ?? readFileSync('sluice-data/demo-key', 'utf8').trim(),
});

// track() returns at once. The client batches the events, and sends a batch again until the gateway acknowledges it.
for (let n = 1; n <= 3; n++) {
  client.track({
    eventId: `example-node-${n}`,
    type: EventType.CONVERSION,
    userId: 'u-1',
    valueMicros: 4_990_000n,
    currency: 'EUR',
  });
}

// close() waits until each event is delivered, refused or given up, and reports the numbers.
console.log(await client.close());
