/** The programs of docs/clients.md, each as its readers would run it. */
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { needChromium, openPage } from '../browser.js';
import type { Task } from '../cases.js';
import { placeholders, readSnippets, type Step } from '../snippets.js';
import { find, need, root } from '../workshop.js';
import type { ForeignClient } from './client.js';
import { runCommand } from './command.js';

interface Section {
  readonly title: string;
  readonly name: string;
  /** Programs that it needs, with what brings them. */
  readonly needs: Readonly<Record<string, string>>;
  /** The program is a page. */
  readonly browser?: boolean;
}

const protoc = { protoc: 'Debian: protobuf-compiler and libprotobuf-dev' };
const go = { go: 'Debian: golang', ...protoc };

const sections: readonly Section[] = [
  { title: 'curl', name: 'page-curl', needs: { curl: 'Debian: curl' } },
  {
    title: 'grpcurl',
    name: 'page-grpcurl',
    needs: { grpcurl: 'go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest' },
  },
  { title: 'Go with grpc-go', name: 'page-grpc-go', needs: go },
  { title: 'Go with connect-go', name: 'page-connect-go', needs: go },
  { title: 'Python', name: 'page-python', needs: { python3: 'Debian: python3-venv' } },
  { title: 'Java', name: 'page-java', needs: { mvn: 'Debian: maven', java: 'Debian: default-jdk' } },
  { title: 'Rust', name: 'page-rust', needs: { cargo: 'Debian: cargo, 1.88 or newer', ...protoc } },
  { title: 'Browser with connect-web', name: 'page-connect-web', needs: {}, browser: true },
  { title: 'Browser with grpc-web', name: 'page-grpc-web', needs: {}, browser: true },
];

const buildWithinMs = 600_000;
const pageWithinMs = 30_000;

/** Puts the task's values where the page has a reader's. */
const fill = (text: string, { address, key, run }: Task): string =>
  text
    .replaceAll(placeholders.address, address)
    // Java gives host and port apart.
    .replaceAll('"127.0.0.1", 7070', `"127.0.0.1", ${address.split(':')[1]}`)
    .replaceAll(placeholders.eventId, `${run}-snippet-1`)
    .replaceAll(placeholders.batchId, `${run}-snippet`)
    .replaceAll(placeholders.key, `Bearer ${key}`);

async function play(steps: readonly Step[], folder: string, task: Task, tools: readonly string[]): Promise<string> {
  let said = '';
  const path = [...new Set(tools.map((tool) => dirname(tool)))].join(':');
  const head = `set -euo pipefail; cd '${folder}'; export PATH="$PATH:${path}" KEY='${task.key}'\n`;
  for (const step of steps) {
    const text = fill(step.text, task);
    if (step.kind === 'file') {
      const file = join(folder, step.name);
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, text);
      continue;
    }
    const { code, out, err } = await runCommand('bash', ['-c', head + text], '', buildWithinMs);
    said += out + err;
    if (code !== 0) throw new Error(`ended with ${code}: ${said.slice(-1_500)}`);
  }
  return said;
}

function createPageClient({ title, name, needs, browser = false }: Section): ForeignClient {
  let folder = '';
  return {
    name,
    about: `docs/clients.md, "${title}"`,
    cases: ['snippet'],
    async prepare(cache) {
      for (const [program, install] of Object.entries(needs)) need(program, install);
      if (browser) needChromium();
      folder = join(cache, name);
    },
    async run(task, listener) {
      const steps = readSnippets().get(title);
      if (steps === undefined) throw new Error(`docs/clients.md has no section "${title}" with a program`);
      await rm(folder, { recursive: true, force: true });
      await mkdir(folder, { recursive: true });
      await symlink(join(root, 'proto'), join(folder, 'proto'));
      // With a package.json npm installs here.
      if (browser) await writeFile(join(folder, 'package.json'), '{"private": true}\n');
      let note = await play(
        steps,
        folder,
        task,
        Object.keys(needs).flatMap((program) => find(program) ?? []),
      );
      if (browser) {
        const told = (text: string): boolean => {
          note = text;
          return true;
        };
        await openPage({ folder, told, withinMs: pageWithinMs });
      }
      const accepted = /accepted"?:?\s*1\b/i.test(note) ? 1 : 0;
      listener.outcome({ case: 'snippet', accepted, refused: 0, code: '', note: note.trim().split('\n').at(-1) ?? '' });
    },
  };
}

export const pageClients: readonly ForeignClient[] = sections.map(createPageClient);

/** Titles of the sections that are run. */
export const pageTitles: readonly string[] = sections.map(({ title }) => title);
