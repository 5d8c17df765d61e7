/**
 * How many single calls are read at the same time. The body of a call is held before the core can count it (admission counts
 * whole batches), so hundreds of callers at once would hold hundreds of bodies. Those past the bound wait unread: HTTP/2's
 * windows and TCP hold them back at the sender. Who calls is checked before: a refusal needs no seat. Streams are not concerned;
 * they read one message after another.
 *
 *   G1  At most `most` calls are inside, except for those that take longer than `holdMs`: a caller that drips its body must not
 *       keep the others out.
 *   G2  First come, first served; who goes away while waiting leaves the line.
 *
 * A call costs two operations on a map, and no timer of its own: there is one for the oldest call inside, while others wait.
 */
export interface GatedCall {
  /** It may be read now. */
  enter(): void;
}

export interface CallGate {
  /** Lets the call enter, now or later. */
  pass(call: GatedCall): void;
  /** The call is over, or has gone away. Twice does no harm. */
  leave(call: GatedCall): void;
  readonly inside: number;
  readonly waiting: number;
}

export interface CallGateOptions {
  readonly most: number;
  readonly holdMs: number;
  /** Monotonic ms. */
  readonly now?: () => number;
  /** As setTimeout. */
  readonly schedule?: (callback: () => void, ms: number) => void;
}

export function createCallGate(options: CallGateOptions): CallGate {
  const { most, holdMs } = options;
  const now = options.now ?? (() => performance.now());
  const schedule = options.schedule ?? ((callback, ms) => void setTimeout(callback, ms).unref());
  const line = new Set<GatedCall>();
  /** With the time of entry: in this order they come due. */
  const inside = new Map<GatedCall, number>();
  let armed = false;

  const admit = (): void => {
    for (const call of line) {
      if (inside.size >= most) return;
      line.delete(call);
      inside.set(call, now());
      call.enter();
    }
  };

  const arm = (): void => {
    const [oldest] = inside.values();
    if (armed || line.size === 0 || oldest === undefined) return;
    armed = true;
    schedule(onTimer, Math.max(1, oldest + holdMs - now()));
  };

  const onTimer = (): void => {
    armed = false;
    const at = now();
    for (const [call, since] of inside) {
      if (since + holdMs > at) break;
      inside.delete(call);
    }
    admit();
    arm();
  };

  return {
    pass(call) {
      if (inside.size < most) {
        inside.set(call, now());
        call.enter();
      } else {
        line.add(call);
        arm();
      }
    },
    leave(call) {
      if (inside.delete(call)) admit();
      else line.delete(call);
    },
    get inside() {
      return inside.size;
    },
    get waiting() {
      return line.size;
    },
  };
}
