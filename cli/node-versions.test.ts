import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { root } from '../lib/testing/root.js';
import { programOf, supportedVersions, versionOf } from './node-versions.js';

const read = (file: string): string => readFileSync(join(root, file), 'utf8');

test('documents, package.json and the image name the same versions of Node', () => {
  const [oldest, middle, newest] = supportedVersions;
  for (const file of ['README.md', 'CONTRIBUTING.md']) {
    assert.match(read(file), new RegExp(`Node ${oldest}, ${middle} or ${newest}`), file);
  }
  const engines = `^${oldest}.0.0 || ^${middle}.0.0 || >=${newest}.0.0`;
  assert.is(JSON.parse(read('package.json')).engines.node, engines);
  assert.is(JSON.parse(read('package-lock.json')).packages[''].engines.node, engines);
  for (const file of ['deploy/Dockerfile', 'compose.yaml']) {
    const images = [...read(file).matchAll(/NODE_IMAGE(?:=|.*:-)node:(\d+)\.\d/g)].map((match) => Number(match[1]));
    assert.equal(images, [newest], file);
  }
});

test('the running version needs no package', () => {
  const program = programOf(Number(process.versions.node.split('.')[0]));
  assert.is(program, process.execPath);
  assert.is(versionOf(program ?? ''), process.version);
});

test('a program that is not there has no version', () => {
  assert.is(versionOf(join(root, 'no-such-node')), '');
});

test.run();
