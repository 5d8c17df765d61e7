import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from '../../lib/errors.js';
import { createCors } from './cors.js';

const allows = (origins: string[], origin: string): boolean =>
  createCors(origins).headers(origin)['access-control-allow-origin'] === origin;

test('an origin is compared as browsers send it, however it was written', () => {
  for (const written of [
    'https://shop.example',
    'https://shop.example/',
    'HTTPS://Shop.Example',
    'https://shop.example:443',
  ]) {
    assert.ok(allows([written], 'https://shop.example'), written);
    assert.not(allows([written], 'https://shop.example.evil'), written);
  }
  assert.ok(allows(['http://127.0.0.1:3000/'], 'http://127.0.0.1:3000'));
  assert.ok(allows(['https://bücher.example'], 'https://xn--bcher-kva.example'));
  assert.ok(allows(['capacitor://localhost'], 'capacitor://localhost'));
  assert.ok(allows(['null'], 'null'));
});

test('what can never match is refused at the start', () => {
  for (const wrong of [
    'shop.example',
    'https://shop.example/path',
    'https://*.shop.example',
    'https://a?b',
    'https://',
    'ftp:x',
  ]) {
    assert.throws(
      () => createCors([wrong]),
      (error: unknown) => error instanceof UsageError,
      wrong,
    );
  }
});

test.run();
