/** What the user reads when the stack runs: where it is, and the first things to do with it. */
import { join } from 'node:path';
import type { UpConfig } from '../../lib/config/index.js';
import { reachable, urlHost } from '../../lib/host.js';
import { shellWord } from '../../lib/terminal.js';
import { clickhousePasswordOf, keyFileOf, natsCredentialsOf } from '../stack-file.js';
import { demoTenant } from './parts.js';

export function greeting(stack: {
  config: UpConfig;
  gateway: string;
  key: string;
  /** Names of the parts that are not ready. */
  waits: readonly string[];
}): string {
  const { config, gateway, key, waits } = stack;
  const { data } = config;
  const state = waits.length === 0 ? 'is ready' : `runs without ${waits.join(' and ')}, which waits (see above),`;
  const at = new Date().toISOString();
  const event = (id: string): string =>
    `{"eventId":"${id}","type":"EVENT_TYPE_PAGE","occurredAt":"${at}","page":{"url":"https://shop.example/"}}`;
  const dataFlag = data === 'sluice-data' ? '' : ` --data ${shellWord(data)}`;
  const keyFile = shellWord(keyFileOf(data));
  const [passwordFile, credentials] = [shellWord(clickhousePasswordOf(data)), shellWord(natsCredentialsOf(data))];
  const host = urlHost(reachable(config.host));
  // To curl and to shells, brackets are a pattern.
  const globs = host.startsWith('[') ? '-g ' : '';
  const authority = gateway.slice('http://'.length);
  return `
Sluice ${state} at ${gateway} (gRPC, gRPC-Web, Connect, HTTP).

  Key of the tenant "${demoTenant}":   ${key}
                            (kept in ${keyFileOf(data)})
  Metrics:                  http://${host}:${config.gatewayMetricsPort}/metrics (gateway), :${config.workerMetricsPort} (worker), :${config.clickhouseMetricsPort} (ClickHouse)
  Logs:                     ${join(data, 'logs')}

Send an event with curl:

  curl -s ${globs}${shellWord(`${gateway}/v1/events`)} -H "authorization: Bearer $(cat ${keyFile})" -H 'content-type: application/json' \\
    -d '${event('hello-1')}'

… or with grpcurl, which needs no .proto files:

  grpcurl -plaintext -H "authorization: Bearer $(cat ${keyFile})" \\
    -d '{"batchId":"hello-batch-2","batch":{"events":[${event('hello-2')}]}}' \\
    ${shellWord(authority)} sluice.ingest.v1.IngestService/Publish

See it in ClickHouse a second later:

  npx sluice query${dataFlag} "SELECT event_id, type, page_url, received_at FROM events ORDER BY received_at DESC LIMIT 5"

ClickHouse and NATS ask for secrets, which lie in the data folder. Other programs log in like this:

  printf 'x-clickhouse-key: %s' "$(cat ${passwordFile})" | curl -s ${globs}-H @- ${shellWord(`http://${host}:${config.clickhousePort}/?query=SELECT+count()+FROM+sluice.events`)}
  NATS_URL="nats://$(cat ${credentials})@${host}:${config.natsPort}" nats stream ls

Ctrl-C ends everything.
`;
}
