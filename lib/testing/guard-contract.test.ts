/**
 * What holds for the contract: clean, compatible with the committed baseline, and the generated code is what it generates.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const root = fileURLToPath(new URL('../..', import.meta.url));

function buf(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(join(root, 'node_modules/.bin/buf'), args, {
    cwd: root,
    encoding: 'utf8',
  });
  return status === 0 ? stdout : `${stdout}${stderr}` || `buf ended with ${status}`;
}

function* files(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* files(path);
    else yield path;
  }
}

const contents = (folder: string): Map<string, string> =>
  new Map([...files(folder)].sort().map((file) => [relative(folder, file), readFileSync(file, 'utf8')]));

test('buf lint finds nothing in our packages', () => {
  assert.is(buf('lint'), '');
});

test('the .proto files are formatted', () => {
  assert.is(buf('format', '--diff'), '');
});

test('nothing breaks clients of the committed baseline, and a break would be seen', () => {
  assert.is(buf('breaking', '--against', 'proto/baseline.binpb'), '');
  // Field 4 of Event given another number: what this check is for.
  const folder = mkdtempSync(join(tmpdir(), 'sluice-breaking-'));
  try {
    for (const file of files(join(root, 'proto'))) {
      if (!file.endsWith('.proto')) continue;
      const path = join(folder, relative(join(root, 'proto'), file));
      spawnSync('mkdir', ['-p', join(path, '..')]);
      writeFileSync(path, readFileSync(file, 'utf8').replace('string name = 4 [', 'string name = 44 ['));
    }
    assert.match(buf('breaking', folder, '--against', 'proto/baseline.binpb'), /name/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('every file names its packages for Go, Java, Swift and others, so that protoc needs no settings', () => {
  const output = buf('build', '-o', '-#format=json', '--exclude-imports');
  const described = JSON.parse(output) as { file: { name: string; options?: Record<string, unknown> }[] };
  assert.ok(described.file.length >= 8);
  for (const { name, options = {} } of described.file) {
    const wanted = ['goPackage', 'javaPackage', 'javaMultipleFiles', 'javaOuterClassname'];
    // The mirrors of grpc's and Google's files carry what their originals carry.
    if (name.startsWith('sluice/'))
      wanted.push('csharpNamespace', 'objcClassPrefix', 'phpNamespace', 'rubyPackage', 'swiftPrefix');
    assert.equal(
      wanted.filter((option) => options[option] === undefined),
      [],
      name,
    );
  }
});

test('the committed generated code is what the .proto files generate', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-generated-'));
  try {
    assert.is(buf('generate', '-o', folder), '');
    const fresh = contents(join(folder, 'sdk-gen/typescript/gen'));
    const committed = contents(join(root, 'sdk-gen/typescript/gen'));
    assert.equal([...committed.keys()], [...fresh.keys()]);
    const stale = [...fresh].filter(([file, text]) => committed.get(file) !== text).map(([file]) => file);
    assert.equal(stale, [], 'run `npm run generate`');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
