import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from '../errors.js';
import { parseArgv } from './argv.js';
import { option, resolveOptions } from './options.js';

const table = {
  maxBytes: option.bytes(1024, 'Most bytes.'),
  verbose: option.bool(false, 'Says more.'),
  natsUrl: option.string('here', 'Where.'),
};

test('flags take their value after a space or an equals sign, and a bare boolean means true', () => {
  const flags = parseArgv(['--max-bytes', '2MiB', '--verbose', '--nats-url=a:1,b:2'], table);
  assert.equal(flags, { maxBytes: '2MiB', verbose: true, natsUrl: 'a:1,b:2' });
  assert.equal(resolveOptions(table, flags, {}), { maxBytes: 2 * 1024 ** 2, verbose: true, natsUrl: 'a:1,b:2' });
  assert.equal(parseArgv(['--verbose', 'false'], table), { verbose: 'false' });
});

test('a number, a size and a duration are refused when they are not of their form', () => {
  const numbers = {
    count: option.int(1, 'How many.'),
    share: option.float(0.5, 'How much.'),
    size: option.bytes(1, 'How large.'),
    wait: option.ms(1, 'How long.'),
  };
  const resolved = resolveOptions(numbers, { count: '12', share: '2.5e-1', size: '1.5KiB', wait: '10 s' }, {});
  assert.equal(resolved, { count: 12, share: 0.25, size: 1536, wait: 10_000 });
  const odd = ['', ' ', '0x10', '+5', '1_000', '012', '1.', '.5', 'NaN', 'Infinity'];
  for (const [name, texts] of Object.entries({
    count: [...odd, ' 12', '12 ', '1e3', '1.0', '1.5', '99999999999999999999', '12s'],
    share: [...odd, ' 0.5', '0.5 ', '1e999', '0.5s'],
    size: [...odd, ' 1KiB', '1KiB ', '1  KiB', '-1', '1.0001KiB', '1KB', '1constructor', '1e3'],
    wait: [...odd, ' 10s', '10s ', '-1s', '0.5', '1y', '10s5ms', '1..5s', '1e3s', '1__proto__'],
  })) {
    for (const text of texts) {
      assert.throws(
        () => resolveOptions(numbers, { [name]: text }, {}),
        (error: unknown) => error instanceof UsageError && error.message.startsWith(`--${name}: "${text}" is not a`),
        `${name} ${text}`,
      );
    }
  }
});

test('a typo, a stray word and a missing value are refused by name', () => {
  const refused = (argv: string[], pattern: RegExp) =>
    assert.throws(
      () => parseArgv(argv, table),
      (error: unknown) => error instanceof UsageError && pattern.test(error.message),
    );
  refused(['--max-byte', '3'], /--max-byte is not a flag here.*--max-bytes/);
  refused(['serve'], /"serve" is not a flag/);
  refused(['--nats-url'], /--nats-url needs a value: Where/);
  refused(['--nats-url', '--verbose'], /--nats-url needs a value/);
});

test.run();
