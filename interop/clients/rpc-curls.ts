/** grpcurl and buf curl: clients that learn the contract from the gateway's reflection, and take JSON. */
import { join } from 'node:path';
import type { CaseName, CaseOutcome, Task } from '../cases.js';
import { need, root } from '../workshop.js';
import type { ForeignClient } from './client.js';
import { type CommandAnswer, runCommand } from './command.js';
import { halfBad, type JsonRequest, oversize, pair, statusName, told } from './json-batches.js';

type Answer = Omit<CaseOutcome, 'case'>;

interface Tool {
  readonly name: string;
  readonly about: string;
  /** @throws Missing */
  find(): string;
  /** Words of a call whose requests come on standard input. */
  words(task: Task, key: string, method: string): string[];
  /** Its words for a status. */
  error(answer: CommandAnswer): { readonly code: string; readonly note: string };
}

const cases: readonly CaseName[] = ['unary', 'stream', 'wrong-key', 'bad-event', 'too-large'];
const service = 'sluice.ingest.v1.IngestService';

const requestsOf = (name: CaseName, id: string, { oversizeBytes }: Task): readonly JsonRequest[] => {
  if (name === 'stream') return Array.from({ length: 300 }, (_, i) => pair(`${id}-${i}`, 4_000));
  if (name === 'bad-event') return [halfBad(id)];
  return [name === 'too-large' ? oversize(id, oversizeBytes) : pair(id)];
};

/** Answers, pretty printed one after another, as values. */
const answersIn = (out: string): { result?: object; accepted?: object }[] =>
  out.trim() === '' ? [] : JSON.parse(`[${out.trim().replaceAll(/\}\s*\n?(?=\{)/g, '},')}]`);

async function call(tool: Tool, task: Task, name: CaseName): Promise<Answer> {
  const key = name === 'wrong-key' ? task.wrongKey : task.key;
  const method = name === 'stream' ? 'PublishStream' : 'Publish';
  const input = requestsOf(name, `${task.run}-${name}`, task).map((one) => JSON.stringify(one));
  const answer = await runCommand(tool.find(), tool.words(task, key, method), input.join('\n'));
  if (answer.code !== 0) return { accepted: 0, refused: 0, ...tool.error(answer) };
  const results = answersIn(answer.out).map(({ result, accepted }) => told(result ?? accepted ?? {}));
  const sum = (of: 'accepted' | 'refused'): number => results.reduce((total, one) => total + one[of], 0);
  return {
    accepted: sum('accepted'),
    refused: sum('refused'),
    code: '',
    note: results.map(({ note }) => note).join(''),
  };
}

const bufCurl = (name: string, protocol: string): Tool => ({
  name,
  about: `buf curl --protocol ${protocol}`,
  find: () => join(root, 'node_modules', '.bin', 'buf'),
  words: ({ address, key: valid }, key, method) => [
    ...['curl', '--protocol', protocol, '--http2-prior-knowledge', '-H', `authorization: Bearer ${key}`, '-d', '@-'],
    // Reflection asks for a key, too, and is not what a call with a wrong one is about.
    ...['--reflect-header', `authorization: Bearer ${valid}`],
    `http://${address}/${service}/${method}`,
  ],
  error({ err }) {
    const { code = 'NO_STATUS', message = err } = err.startsWith('{') ? JSON.parse(err) : {};
    return { code: statusName(code), note: message };
  },
});

const tools: readonly Tool[] = [
  {
    name: 'grpcurl',
    about: 'grpcurl',
    find: () => need('grpcurl', 'go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest'),
    words: ({ address, key: valid }, key, method) => [
      ...['-plaintext', '-rpc-header', `authorization: Bearer ${key}`],
      ...['-reflect-header', `authorization: Bearer ${valid}`, '-d', '@', address],
      `${service}/${method}`,
    ],
    error: ({ err }) => ({
      code: statusName(/Code: (\w+)/.exec(err)?.[1] ?? 'NO_STATUS'),
      note: /Message: (.*)/.exec(err)?.[1] ?? err,
    }),
  },
  bufCurl('buf-curl', 'connect'),
  bufCurl('buf-curl-grpc', 'grpc'),
  bufCurl('buf-curl-grpcweb', 'grpcweb'),
];

export const rpcCurls: readonly ForeignClient[] = tools.map((tool) => ({
  name: tool.name,
  about: tool.about,
  cases,
  async prepare() {
    tool.find();
  },
  async run(task, listener) {
    for (const name of task.cases) listener.outcome({ case: name, ...(await call(tool, task, name)) });
  },
}));
