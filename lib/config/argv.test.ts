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
