import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { reachable, urlHost } from './host.js';

test('IPv6 stands in brackets, and servers that listen everywhere are reached here', () => {
  const cases = {
    '127.0.0.1': '127.0.0.1',
    '0.0.0.0': '127.0.0.1',
    '::': '[::1]',
    '::1': '[::1]',
    'fe80::2': '[fe80::2]',
    localhost: 'localhost',
  };
  for (const [host, url] of Object.entries(cases)) {
    assert.is(urlHost(reachable(host)), url);
    assert.ok(URL.canParse(`http://${urlHost(reachable(host))}:1/`));
  }
});

test.run();
