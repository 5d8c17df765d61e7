import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  ConnectionWindow,
  narrowWindow,
  StreamWindows,
  type WindowedConnection,
  wideWindow,
} from './stream-windows.js';

const more = wideWindow - narrowWindow;

interface TestConnection extends WindowedConnection {
  open: number;
  payload: number;
  readonly sent: number[];
  acknowledged: boolean;
}

/** Windows for eight calls, and a clock by hand that looks four times a second. */
function scene() {
  let now = 0;
  let crowded = false;
  const windows = new StreamWindows({ maxBytes: 8 * more, isCrowded: () => crowded });
  const all: TestConnection[] = [];
  return {
    windows,
    crowd(is: boolean): void {
      crowded = is;
    },
    connect(known = true): TestConnection {
      const one: TestConnection = {
        window: new ConnectionWindow(now),
        open: 1,
        payload: 0,
        sent: [],
        acknowledged: true,
        session: {
          destroyed: false,
          closed: false,
          get pendingSettingsAck() {
            return !one.acknowledged;
          },
          settings: ({ initialWindowSize }) => one.sent.push(initialWindowSize),
        },
      };
      one.window.known = known;
      all.push(one);
      return one;
    },
    pass(ms: number, bringing: Map<TestConnection, number> = new Map()): void {
      for (let past = 0; past < ms; past += 250) {
        now += 250;
        for (const one of all) {
          one.payload += bringing.get(one) ?? 0;
          windows.look(one, now);
        }
      }
    },
  };
}

test('a busy connection with a valid key becomes wide, once', () => {
  const { windows, connect, pass } = scene();
  const busy = connect();
  const slow = connect();
  const stranger = connect(false);
  pass(
    1_000,
    new Map([
      [busy, narrowWindow],
      [slow, narrowWindow / 4],
      [stranger, narrowWindow],
    ]),
  );
  assert.equal(busy.sent, [wideWindow]);
  assert.equal(slow.sent, []);
  assert.equal(stranger.sent, []);
  assert.is(windows.bytes, more);
});

test('it is narrow again after ten quiet seconds', () => {
  const { windows, connect, pass } = scene();
  const one = connect();
  pass(250, new Map([[one, narrowWindow]]));
  pass(9_750);
  assert.equal(one.sent, [wideWindow]);
  pass(500);
  assert.equal(one.sent, [wideWindow, narrowWindow]);
  assert.is(windows.bytes, 0);
});

test('the calls of all wide connections are bounded, and room comes back', () => {
  const { windows, connect, pass } = scene();
  const first = connect();
  const second = connect();
  first.open = 6;
  second.open = 3;
  const both = new Map([
    [first, narrowWindow],
    [second, narrowWindow],
  ]);
  pass(250, both);
  assert.equal(first.sent, [wideWindow]);
  assert.equal(second.sent, []);
  first.open = 5;
  windows.changed(first);
  pass(250, both);
  assert.equal(second.sent, [wideWindow]);
  assert.is(windows.bytes, 8 * more);

  second.open = 4;
  windows.changed(second);
  assert.equal(second.sent, [wideWindow, narrowWindow], 'the one that asks for too much becomes narrow');
  assert.is(windows.bytes, 5 * more);
  windows.gone(first);
  assert.is(windows.bytes, 0);
});

test('all become narrow while bodies are paused for want of room', () => {
  const { windows, connect, pass, crowd } = scene();
  const one = connect();
  const bringing = new Map([[one, narrowWindow]]);
  pass(250, bringing);
  crowd(true);
  pass(1_000, bringing);
  assert.equal(one.sent, [wideWindow, narrowWindow]);
  assert.is(windows.bytes, 0);
  crowd(false);
  pass(8_000, bringing);
  assert.is(one.sent.length, 2, 'it does not go to and fro');
  pass(2_000, bringing);
  assert.equal(one.sent, [wideWindow, narrowWindow, wideWindow]);
});

test('no settings follow those that the peer has not acknowledged, and the wide window counts until then', () => {
  const { windows, connect, pass, crowd } = scene();
  const one = connect();
  const bringing = new Map([[one, narrowWindow]]);
  pass(250, bringing);
  one.acknowledged = false;
  crowd(true);
  pass(1_000, bringing);
  assert.equal(one.sent, [wideWindow]);
  assert.is(windows.bytes, more);
  one.acknowledged = true;
  pass(250);
  assert.equal(one.sent, [wideWindow, narrowWindow]);
});

test('a connection with many calls stays narrow, and one that opens many becomes so', () => {
  const windows = new StreamWindows({ maxBytes: 100 * more, isCrowded: () => false });
  const { connect } = scene();
  const one = connect();
  one.open = 17;
  one.payload = narrowWindow;
  windows.look(one, 250);
  assert.equal(one.sent, []);
  one.open = 16;
  one.payload += narrowWindow;
  windows.look(one, 500);
  assert.equal(one.sent, [wideWindow]);
  one.open = 17;
  windows.changed(one);
  assert.equal(one.sent, [wideWindow, narrowWindow]);
});

test.run();
