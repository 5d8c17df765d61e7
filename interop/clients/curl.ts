/** curl, with JSON for the plain routes. */
import { gzipSync } from 'node:zlib';
import { Code } from '@connectrpc/connect';
import { errorTable } from '../../lib/errors.js';
import type { CaseName, CaseOutcome, Task } from '../cases.js';
import { need } from '../workshop.js';
import type { ForeignClient } from './client.js';
import { runCommand } from './command.js';
import { event, halfBad, type JsonRequest, oversize, pair, request, statusName, told } from './json-batches.js';

type Answer = Omit<CaseOutcome, 'case'>;
type Call = (task: Task, id: string) => Promise<Answer>;

let curl = 'curl';

async function post(
  task: Task,
  { batchId, batch }: JsonRequest,
  more: Partial<Pick<Task, 'key' | 'address'>> & { gzip?: boolean; flags?: string[] } = {},
): Promise<Answer> {
  const { key = task.key, address = task.address, gzip = false, flags = [] } = more;
  const headers = [
    `authorization: Bearer ${key}`,
    'content-type: application/json',
    ...(gzip ? ['content-encoding: gzip'] : []),
  ];
  const body = JSON.stringify({ batchId, events: batch.events });
  const { out, err } = await runCommand(
    curl,
    [
      '-sS',
      ...flags,
      ...headers.flatMap((line) => ['-H', line]),
      '--data-binary',
      '@-',
      `http://${address}/v1/events/batch`,
    ],
    gzip ? gzipSync(body) : body,
  );
  if (!out.startsWith('{')) return { accepted: 0, refused: 0, code: 'NO_ANSWER', note: `${out}${err}` };
  const answer = JSON.parse(out);
  if (answer.error === undefined) return told(answer);
  const name = answer.error.code as keyof typeof errorTable;
  return { accepted: 0, refused: 0, code: statusName(Code[errorTable[name].code]), note: answer.error.message };
}

const calls: Partial<Record<CaseName, Call>> = {
  unary: (task, id) => post(task, pair(id)),
  'wrong-key': (task, id) => post(task, pair(id), { key: task.wrongKey }),
  'bad-event': (task, id) => post(task, halfBad(id)),
  'too-large': (task, id) => post(task, oversize(id, 2 * task.oversizeBytes)),
  gzip: (task, id) => post(task, pair(id, 2_000), { gzip: true }),
  retry: (task, id) =>
    post(task, request(id, event(`${id}-1`)), { address: task.swallow, flags: ['--retry', '3', '--retry-all-errors'] }),
};

export const curlClient: ForeignClient = {
  name: 'curl',
  about: 'curl with JSON for the plain HTTP routes',
  cases: Object.keys(calls) as CaseName[],
  async prepare() {
    curl = need('curl', 'Debian: curl');
  },
  async run(task, listener) {
    for (const name of task.cases) {
      const answer = await calls[name]?.(task, `${task.run}-${name}`);
      if (answer !== undefined) listener.outcome({ case: name, ...answer });
    }
  },
};
