import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { compare, type Measured, type Recording, readRecording, recordAnew } from './bounds.js';

const recording: Recording = {
  scan_to_json_parse: { what: 'a / b', recorded: 8, margin: 0.4 },
  ceiling_cpu_to_gateway_cpu: { what: 'c / d', recorded: 0.6, margin: 0.3 },
};
const passed = (measured: Measured, of = recording) => compare(of, measured).map((finding) => finding.passed);

test('what is as recorded, better, or within the margin passes', () => {
  assert.equal(passed({ scan_to_json_parse: 8, ceiling_cpu_to_gateway_cpu: 0.6 }), [true, true]);
  assert.equal(passed({ scan_to_json_parse: 80, ceiling_cpu_to_gateway_cpu: 6 }), [true, true]);
  assert.equal(passed({ scan_to_json_parse: 4.81, ceiling_cpu_to_gateway_cpu: 0.421 }), [true, true]);
});

test('what fell below the margin fails, each ratio by itself', () => {
  assert.equal(passed({ scan_to_json_parse: 4.79, ceiling_cpu_to_gateway_cpu: 0.6 }), [false, true]);
  assert.equal(passed({ scan_to_json_parse: 8, ceiling_cpu_to_gateway_cpu: 0.419 }), [true, false]);
});

test('a ratio that could not be measured does not pass', () => {
  assert.equal(passed({ scan_to_json_parse: Number.NaN, ceiling_cpu_to_gateway_cpu: 0.6 }), [false, true]);
});

test('the recording that is committed fails a scanner of double cost and a gateway of double cost', () => {
  const committed = readRecording(readFileSync(new URL('../gate.json', import.meta.url), 'utf8'));
  const scan = committed.scan_to_json_parse.recorded;
  const ratio = committed.ceiling_cpu_to_gateway_cpu.recorded;
  assert.equal(passed({ scan_to_json_parse: scan, ceiling_cpu_to_gateway_cpu: ratio }, committed), [true, true]);
  // ratio = (publisher + nats) / (gateway + nats). nats-server has at most 0.45 of the gateway's side (measured: 0.3 to 0.4).
  const doubled = ratio / (2 * 0.55 + 0.45);
  assert.equal(passed({ scan_to_json_parse: scan / 2, ceiling_cpu_to_gateway_cpu: doubled }, committed), [
    false,
    false,
  ]);
});

test('a recording without a ratio, or with a margin that would let half the speed pass, is refused', () => {
  const text = (change: object) => JSON.stringify({ ...recording, ...change });
  assert.equal(readRecording(text({})), recording);
  assert.throws(() => readRecording(text({ scan_to_json_parse: undefined })), /gate --record/);
  assert.throws(() => readRecording(text({ scan_to_json_parse: { recorded: 0, margin: 0.3 } })), /gate --record/);
  assert.throws(() => readRecording(text({ scan_to_json_parse: { recorded: 5, margin: 0.5 } })), /half the speed/);
});

test('a new recording takes what was measured and keeps the margins', () => {
  const anew = recordAnew(recording, { scan_to_json_parse: 12.3456, ceiling_cpu_to_gateway_cpu: 0.71234 });
  assert.equal(anew.scan_to_json_parse, { what: 'a / b', recorded: 12.3, margin: 0.4 });
  assert.equal(anew.ceiling_cpu_to_gateway_cpu, { what: 'c / d', recorded: 0.712, margin: 0.3 });
});

test.run();
