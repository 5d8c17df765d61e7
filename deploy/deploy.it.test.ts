/**
 * The deployment files, as far as they can be held without a container engine: what they name exists, what is pinned is
 * pinned, and a gateway and the commands run from the image's set of files.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { parse } from 'yaml';
import { allocatorVariables } from '../lib/config/allocator.js';
import { allOptions, gatewayOptions, nodeFlags, variableOf } from '../lib/config/index.js';
import { linkProductionPackages } from '../lib/testing/installation.js';
import { freePort, natsEnvironment } from '../lib/testing/nats.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (file: string): string => readFileSync(join(root, file), 'utf8');

interface Service {
  readonly image: string;
  readonly entrypoint?: readonly string[];
  readonly command?: readonly string[];
  readonly environment?: Record<string, string>;
  readonly read_only?: boolean;
  readonly cap_drop?: readonly string[];
  readonly cap_add?: readonly string[];
  readonly security_opt?: readonly string[];
  readonly privileged?: boolean;
  readonly ports?: readonly string[];
  readonly networks?: readonly string[];
  readonly volumes?: readonly string[];
  readonly deploy?: { readonly resources: { readonly limits: { readonly memory?: string; readonly pids?: number } } };
}
const { services, networks } = parse(read('compose.yaml'), { merge: true }) as {
  services: Record<string, Service>;
  networks: Record<string, { readonly internal?: boolean } | null>;
};

/** Sources of COPY from the build's context. */
const copied = new Set(
  [...read('deploy/Dockerfile').matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap((match) =>
    (match[1] ?? '').split(' '),
  ),
);

test('images are pinned to a version', () => {
  const images = [
    ...Object.values(services).map((service) => service.image),
    ...[...read('deploy/Dockerfile').matchAll(/^ARG NODE_IMAGE=(\S+)/gm)].map((match) => match[1] ?? ''),
  ].filter((image) => image !== 'sluice:local');
  assert.equal(
    [...read('deploy/Dockerfile').matchAll(/^FROM (\S+)/gm)].map((match) => match[1]?.replace(/[${}]/g, '')),
    ['NODE_IMAGE', 'NODE_IMAGE', 'NODE_IMAGE', 'scratch'],
  );
  assert.is(images.length, 3);
  for (const image of images) assert.match(image, /:\d+\.\d+\.\d+/);
});

test('every container is confined, and has limits of memory and processes', () => {
  for (const [name, service] of Object.entries(services)) {
    assert.is(service.read_only, true, name);
    assert.equal(service.cap_drop, ['ALL'], name);
    assert.is(service.cap_add, undefined, name);
    assert.is(service.privileged, undefined, name);
    assert.ok(service.security_opt?.includes('no-new-privileges:true'), name);
    const { memory, pids } = service.deploy?.resources.limits ?? {};
    assert.match(String(memory), /^\d+[mg]$/, name);
    assert.ok(Number(pids) >= 128, name);
    for (const volume of service.volumes ?? []) assert.match(volume, /^\.\/deploy\/.*:ro$|^(?:nats|clickhouse):/, name);
  }
  assert.match(read('deploy/Dockerfile'), /^USER 1000:1000$/m);
});

test('only the gateway has ports on the host, and the log and ClickHouse have no way out', () => {
  for (const [name, { ports, networks: of = [] }] of Object.entries(services)) {
    assert.is(ports !== undefined, name === 'gateway', name);
    assert.is(of.includes('public'), name === 'gateway', name);
  }
  assert.not.ok(services.gateway?.networks?.includes('warehouse'));
  assert.equal(networks, { public: null, log: { internal: true }, warehouse: { internal: true } });
});

test('strangers cannot read the contract by reflection', () => {
  assert.is(services.gateway?.environment?.SLUICE_REFLECTION, 'key');
});

/** Variables that compose.yaml cannot do without. */
const needed = [...new Set([...read('compose.yaml').matchAll(/\$\{(\w+):\?/g)].map((match) => match[1] ?? ''))];

test('tls.sh says that openssl is missing', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-no-openssl-'));
  try {
    const { status, stderr } = spawnSync('/bin/sh', [join(root, 'deploy/tls.sh'), join(folder, 'tls')], {
      encoding: 'utf8',
      env: { PATH: folder },
    });
    assert.is(status, 1);
    assert.match(stderr, /^openssl is missing/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('secrets.sh fills in what is needed, and changes nothing that is set', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-secrets-'));
  try {
    const file = join(folder, 'compose.env');
    const run = (): Record<string, string> => {
      const { status, stderr } = spawnSync('sh', [join(root, 'deploy/secrets.sh'), file], { encoding: 'utf8' });
      assert.is(status, 0, stderr);
      assert.is(statSync(file).mode & 0o777, 0o600);
      return Object.fromEntries(
        readFileSync(file, 'utf8')
          .split('\n')
          .filter((line) => /^\w/.test(line))
          .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
      );
    };
    const first = run();
    assert.ok(needed.length >= 8);
    for (const name of needed) assert.match(String(first[name]), /^[0-9a-z]{49}$|^[0-9a-f]{64}$/, name);
    const sha256 = (text = ''): string => createHash('sha256').update(text).digest('hex');
    assert.is(first.CLICKHOUSE_SLUICE_SHA256, sha256(first.CLICKHOUSE_PASSWORD));
    assert.is(first.CLICKHOUSE_ANALYST_SHA256, sha256(first.CLICKHOUSE_ANALYST_PASSWORD));
    assert.equal(run(), first);
    // A password of the operator's own, as older versions had it.
    writeFileSync(file, 'CLICKHOUSE_PASSWORD=mine\n');
    const theirs = run();
    assert.is(theirs.CLICKHOUSE_PASSWORD, 'mine');
    assert.is(theirs.CLICKHOUSE_SLUICE_SHA256, sha256('mine'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('secrets.sh refuses a password that compose or an address would read in its own way', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-passwords-'));
  try {
    const file = join(folder, 'compose.env');
    const run = (line: string): string => {
      writeFileSync(file, `${line}\n`);
      const { status, stderr } = spawnSync('sh', [join(root, 'deploy/secrets.sh'), file], { encoding: 'utf8' });
      assert.is(readFileSync(file, 'utf8').startsWith(line) || status === 0, true, 'a refused file stays as it is');
      return status === 0 ? '' : stderr;
    };
    for (const bad of ['a$HOME', `'quoted'`, '"quoted"', 'a #b', 'a b', 'a@b', 'a/b', 'a%20b', 'ä', 'a\\b']) {
      for (const name of ['NATS_GATEWAY_PASSWORD', 'CLICKHOUSE_PASSWORD']) {
        assert.match(run(`${name}=${bad}`), new RegExp(`^${name} in .* has a character other than letters`), bad);
      }
    }
    assert.match(run('NATS_ADMIN_PASSWORD=1e5'), /^NATS_ADMIN_PASSWORD in .* begins with no letter/);
    assert.is(run('NATS_ADMIN_PASSWORD=A-b_c.d~9'), '');
    assert.is(run('CLICKHOUSE_PASSWORD=9-a'), '');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('secrets.sh makes the mounted files of a clone under umask 077 readable for the containers', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-umask-'));
  try {
    const mounted = Object.values(services)
      .flatMap(({ volumes = [] }) => volumes)
      .map((volume) => /^\.\/deploy\/([^:]+)/.exec(volume)?.[1])
      .filter((name) => name !== undefined);
    assert.ok(mounted.length >= 4);
    for (const name of [...mounted, 'secrets.sh', 'compose.env.example']) {
      writeFileSync(join(folder, name), read(`deploy/${name}`), { mode: 0o600 });
    }
    const { status, stderr } = spawnSync('sh', [join(folder, 'secrets.sh')], { encoding: 'utf8' });
    assert.is(status, 0, stderr);
    for (const name of mounted) assert.is(statSync(join(folder, name)).mode & 0o777, 0o644, name);
    assert.is(statSync(join(folder, 'compose.env')).mode & 0o777, 0o600);
    assert.match(read('deploy/Dockerfile'), /^RUN npm run build && chmod -R a\+rX \/app\/dist$/m);
    assert.equal(
      [...read('deploy/Dockerfile').matchAll(/^FROM scratch[\s\S]*/gm)].flatMap(
        ([last]) => last.match(/^COPY (?!--from).*/gm) ?? [],
      ),
      [],
      'what is copied from the clone passes chmod',
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('pin-images.sh prints every image with the digest that docker tells', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-pin-'));
  try {
    const digest = `sha256:${'0'.repeat(64)}`;
    writeFileSync(join(folder, 'docker'), `#!/bin/sh\necho ${digest}\n`, { mode: 0o755 });
    const { stdout } = spawnSync('sh', [join(root, 'deploy/pin-images.sh')], {
      encoding: 'utf8',
      env: { ...process.env, PATH: `${folder}:${process.env.PATH}` },
    });
    const lines = stdout.trim().split('\n');
    assert.is(lines.length, 3);
    for (const line of lines) {
      const [, name, image] = /^(\w+_IMAGE)=(.*)@sha256:0{64}$/.exec(line) ?? [];
      assert.ok(read(name === 'NODE_IMAGE' ? 'deploy/Dockerfile' : 'compose.yaml').includes(image ?? '?'), line);
      assert.ok(read('compose.yaml').includes(`\${${name}:-${image}}`), line);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('every SLUICE_ variable is a setting', () => {
  const known = new Set(Object.values(allOptions).flatMap((table) => Object.keys(table).map(variableOf)));
  const used = Object.values(services).flatMap((service) => Object.keys(service.environment ?? {}));
  const settings = used.filter((name) => name.startsWith('SLUICE_'));
  assert.ok(settings.length >= 8);
  for (const name of settings) assert.ok(known.has(name), name);
});

test('the log takes the largest batch that a gateway may be set to take', () => {
  const megabytes = Number(/max_payload: (\d+)MB/.exec(read('deploy/nats.conf'))?.[1]);
  assert.ok(megabytes * 1024 ** 2 >= (gatewayOptions.maxBatchBytes.max ?? 0) + 4096);
});

test('nats-server takes the configuration', () => {
  const { status, stderr, error } = spawnSync('nats-server', ['-t', '-c', join(root, 'deploy/nats.conf')], {
    encoding: 'utf8',
    env: { ...natsEnvironment(), ...Object.fromEntries(needed.map((name) => [name, 'secret'])) },
  });
  assert.is(error, undefined);
  assert.is(status, 0, stderr);
});

/** The words of an instruction of the Dockerfile, as ENTRYPOINT. */
const wordsOf = (instruction: string): string[] =>
  JSON.parse(new RegExp(`^${instruction} (\\[.*\\])$`, 'm').exec(read('deploy/Dockerfile'))?.[1] ?? 'null');

/** The folder /app of the image, made by the Dockerfile's steps: the build of the files that it copies, and the packages of production. */
async function withImage(use: (app: string) => Promise<void> | void): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-image-'));
  const [sources, app] = [join(folder, 'sources'), join(folder, 'app')];
  try {
    for (const source of copied) {
      mkdirSync(join(sources, source, '..'), { recursive: true });
      cpSync(join(root, source), join(sources, source), {
        recursive: true,
        filter: (file) => !file.endsWith('.test.ts') && basename(file) !== 'node_modules',
      });
    }
    symlinkSync(join(root, 'node_modules'), join(sources, 'node_modules'));
    const build = spawnSync('npm', ['run', 'build'], { cwd: sources, encoding: 'utf8' });
    assert.is(build.status, 0, `${build.stdout}${build.stderr}`);
    mkdirSync(app);
    renameSync(join(sources, 'dist'), join(app, 'dist'));
    linkProductionPackages(app, false);
    await use(app);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Of the packages that a compiled file imports. */
const packagesIn = (text: string): string[] =>
  [...text.matchAll(/\bfrom\s+'([^'.#][^']*)'|^import '([^'.#][^']*)'|\bimport\('([^'.#][^']*)'/gm)]
    .map(([, from, bare, late]) => from ?? bare ?? late ?? '')
    .filter((name) => !name.startsWith('node:'))
    .map((name) => /^(?:@[^/]+\/)?[^/]+/.exec(name)?.[0] ?? '');

test('a gateway and the commands run from the files of the image, which need no package of development', async () => {
  await withImage(async (app) => {
    const { dependencies, optionalDependencies } = JSON.parse(read('package.json')) as Record<string, object>;
    const known = { ...dependencies, ...optionalDependencies };
    const files = readdirSync(join(app, 'dist'), { recursive: true, encoding: 'utf8' }).filter((name) =>
      /\.m?js$/.test(name),
    );
    const needed = new Set(files.flatMap((name) => packagesIn(readFileSync(join(app, 'dist', name), 'utf8'))));
    assert.equal(
      [...needed].filter((name) => !(name in known)),
      [],
    );
    assert.ok(needed.size > 15, `only ${needed.size} packages: does the pattern still match?`);
    assert.equal(
      files.filter((name) => !existsSync(join(app, 'dist', `${name}.map`))),
      [],
      'each file has a source map',
    );
    assert.not.ok(existsSync(join(app, 'node_modules/tsx')));
    assert.not.ok(existsSync(join(app, 'node_modules/chdb')));

    const commands = Object.values(services).flatMap(({ entrypoint }) =>
      entrypoint === undefined ? [] : [entrypoint],
    );
    assert.is(commands.length, 3);
    for (const [program, ...words] of commands) {
      assert.is(program, 'node');
      const help = spawnSync(process.execPath, [...words, '--help'], { cwd: app, encoding: 'utf8' });
      assert.is(help.status, 0, help.stderr);
      assert.match(help.stdout, /Usage: sluice/);
    }

    const [program, ...entrypoint] = wordsOf('ENTRYPOINT');
    assert.is(program, 'node');
    const port = await freePort();
    const flags = ['--port', String(port), '--metrics-port', '0', '--nats-url', '127.0.0.1:1'];
    const gateway = spawn(process.execPath, [...entrypoint, ...wordsOf('CMD'), ...flags], {
      cwd: app,
      stdio: 'ignore',
    });
    try {
      const end = Date.now() + 20_000;
      const status = async (path: string): Promise<number> =>
        (await fetch(`http://127.0.0.1:${port}${path}`).catch(() => undefined))?.status ?? 0;
      while ((await status('/healthz')) !== 200) {
        if (Date.now() > end || gateway.exitCode !== null) throw new Error('the gateway does not answer');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      assert.is(await status('/readyz'), 503);
    } finally {
      gateway.kill('SIGKILL');
    }
  });
});

/** Where the image has it. */
const imageJemalloc = '/usr/local/lib/libjemalloc.so.2';

test('the roles run with the flags of node and the allocator that `sluice` gives them', () => {
  const gateway = [...nodeFlags.gateway, 'dist/gateway/main.js'];
  assert.equal(services.gateway?.command, gateway);
  assert.equal(wordsOf('CMD'), gateway);
  for (const [name, value] of Object.entries(allocatorVariables(imageJemalloc))) {
    assert.is(services.gateway?.environment?.[name], value);
  }
  assert.match(read('deploy/Dockerfile'), new RegExp(`libjemalloc2[^]* ${imageJemalloc.replaceAll('.', '\\.')}$`, 'm'));
  assert.equal(services.worker?.command, [...nodeFlags.worker, 'dist/workers/main.js']);
});

test.run();
