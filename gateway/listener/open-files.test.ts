import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { allowedConnections, openFilesOf } from './open-files.js';

const limits = (soft: string): string =>
  `Limit                     Soft Limit           Hard Limit           Units\nMax processes             63000                63000                processes\nMax open files            ${soft.padEnd(20)} 1048576              files\n`;

test('the limit of open files is read from /proc, and may be none', () => {
  assert.is(openFilesOf(limits('1024')), 1024);
  assert.is(openFilesOf(limits('unlimited')), undefined);
  assert.is(openFilesOf(''), undefined);
});

test('connections leave descriptors for all else, and a limit that is too low is reported', () => {
  const warnings: object[] = [];
  const logger = { warn: (fields: object) => void warnings.push(fields) } as never;
  assert.is(
    allowedConnections(10_000, logger, () => limits('65536')),
    10_000,
  );
  assert.is(
    allowedConnections(10_000, logger, () => limits('unlimited')),
    10_000,
  );
  assert.is(
    allowedConnections(10_000, logger, () => ''),
    10_000,
  );
  assert.equal(warnings, []);
  assert.is(
    allowedConnections(10_000, logger, () => limits('1024')),
    924,
  );
  assert.equal(warnings, [{ openFiles: 1024, maxConnections: 10_000, most: 924 }]);
  assert.is(
    allowedConnections(10_000, logger, () => limits('64')),
    1,
  );
});

test.run();
