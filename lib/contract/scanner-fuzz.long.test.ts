/** The scanner against the oracle: the mutated batches that scanner-fuzz.test.ts leaves out. */
import { test } from 'uvu';
import { fuzzScanner } from '../testing/scanner-fuzz.js';

test('scanner and oracle agree on every event of 180,000 more mutated batches', () => fuzzScanner(20_000, 200_000));

test.run();
