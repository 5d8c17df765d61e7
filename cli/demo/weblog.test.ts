import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { linesOf } from './input.js';
import { pageEvent, parseLine, parseTime, weblogSource } from './weblog.js';

const good =
  '83.149.9.0 - frank [17/May/2015:10:05:03 +0000] "GET /a/b?q=1#x HTTP/1.1" 200 203023 "http://example.com/" "Mozilla/5.0 (X11; \\"odd\\")"';

test('reads every field of a line', () => {
  const entry = parseLine(good);
  assert.equal(entry, {
    address: '83.149.9.0',
    user: 'frank',
    time: new Date('2015-05-17T10:05:03Z'),
    method: 'GET',
    target: '/a/b?q=1#x',
    status: 200,
    bytes: 203_023,
    referrer: 'http://example.com/',
    userAgent: 'Mozilla/5.0 (X11; "odd")',
    cutShort: false,
  });
  const event = entry === undefined ? undefined : pageEvent(entry);
  assert.is(event?.page?.path, '/a/b');
  assert.is(event?.page?.url, '/a/b?q=1#x');
  assert.is(event?.page?.status, 200);
  assert.equal(event?.metrics, { response_bytes: 203_023 });
});

test('takes dashes as not told, and a line cut off within its user agent', () => {
  const entry = parseLine('1.2.3.0 - - [01/Jan/2020:00:00:00 +0000] "HEAD / HTTP/1.0" 304 - "-" "-"');
  assert.is(entry?.bytes, undefined);
  assert.is(entry?.referrer, undefined);
  assert.is(entry?.userAgent, undefined);
  assert.is(entry?.user, undefined);
  const cut = parseLine('1.2.3.0 - - [01/Jan/2020:00:00:00 +0000] "GET / HTTP/1.0" 200 5 "-" "Mozilla/5.0 (compat');
  assert.ok(cut?.cutShort);
  assert.is(cut?.userAgent, 'Mozilla/5.0 (compat');
});

test('reads time zones, and refuses times that do not exist', () => {
  assert.equal(parseTime('17/May/2015:10:05:03 +0200'), new Date('2015-05-17T08:05:03Z'));
  assert.equal(parseTime('01/Jan/2015:00:30:00 -0330'), new Date('2015-01-01T04:00:00Z'));
  for (const bad of [
    'x',
    '31/Feb/2015:10:05:03 +0000',
    '29/Feb/2015:10:05:03 +0000',
    '00/May/2015:10:05:03 +0000',
    '17/Mai/2015:10:05:03 +0000',
    '17/May/2015:24:00:00 +0000',
    '17/May/2015:25:05:03 +0000',
    '17/May/2015:10:60:03 +0000',
    '30/Jun/2015:23:59:60 +0000',
    '17/May/2015:10:05:99 +0000',
    '17/May/2015:10:05:03 +2400',
    '17/May/2015:10:05:03 +0060',
    '17/May/0070:10:05:03 +0000',
    '31/Dec/1969:23:59:59 +0000',
    '01/Jan/2200:00:00:00 +0000',
  ]) {
    assert.is(parseTime(bad), undefined, bad);
  }
});

test('refuses what is no request', () => {
  for (const bad of [
    '',
    'hello',
    good.replace('GET /a/b?q=1#x HTTP/1.1', '\\x16\\x03\\x01'),
    good.replace('200', 'abc'),
    good.replace('203023', '0x10'),
    good.replace('203023', '9'.repeat(400)),
  ]) {
    assert.is(parseLine(bad), undefined, bad);
  }
});

test('keeps texts within the contract, cut between characters', () => {
  const entry = parseLine(good);
  if (entry === undefined) throw new Error('no line');
  const event = pageEvent({ ...entry, userAgent: 'ü'.repeat(600), target: `/${'a'.repeat(5_000)}` });
  assert.is(event.device?.userAgent, 'ü'.repeat(512));
  assert.is(event.page?.url?.length, 4_096);
  assert.is(event.page?.path?.length, 2_048);
});

test('splits lines wherever chunks end, and drops one that is too long without keeping it', async () => {
  const text = `one\r\ntwo\n${'x'.repeat(100)}\nthree`;
  for (const size of [1, 2, 3, 7, 50, 1_000]) {
    const chunks = [];
    for (let i = 0; i < text.length; i += size) chunks.push(Buffer.from(text.slice(i, i + size)));
    const lines = [];
    for await (const line of linesOf(Readable.from(chunks), 50)) lines.push(line);
    assert.equal(lines, ['one', 'two', undefined, 'three'], `chunks of ${size}`);
  }
});

test('counts and shows what it leaves out, and refuses a file without any request', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-weblog-'));
  try {
    const file = join(folder, 'access.log');
    await writeFile(file, `${good}\nnonsense here\n${good}\n\n`);
    const source = await weblogSource(file);
    assert.is(source.total, 2);
    assert.match(source.notes[0] ?? '', /1 of 3 lines .* left out: "nonsense here"/);
    await writeFile(file, 'nonsense\n');
    assert.match(String(await weblogSource(file).catch(String)), /no line in Combined Log Format/);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

const real = fileURLToPath(new URL('../../../shared/data/weblog.log.gz', import.meta.url));

test('the real log becomes 10,000 page views', async () => {
  if (!existsSync(real)) {
    console.log(`skipped: ${real} is not here`);
    return;
  }
  const source = await weblogSource(real);
  assert.is(source.total, 10_000);
  assert.equal(source.notes, ['1 of 10000 lines end within their user agent and are taken as they are']);
  let events = 0;
  for await (const event of source.events()) if (event.page?.path?.startsWith('/')) events++;
  assert.ok(events > 9_990, `${events} paths`);
});

test.run();
