/**
 * Control runs: with one protection switched off, the harness must find what it is there to find. A protection is switched off in the
 * compiled copy that the run starts its processes from (build.ts), by replacing one statement; production code has no switch for it.
 */

/** Replaces a piece of compiled text that is there exactly once. */
export interface Patch {
  /** From the root of the compiled project. */
  readonly file: string;
  readonly find: string;
  readonly put: string;
}

export interface Control {
  /** What is missing then. */
  readonly without: string;
  /** What the run must show. */
  readonly shows: 'lost' | 'doubled';
  /** Faults that bring it out soon; the default of `--only`. */
  readonly faults: readonly string[];
  readonly patches: readonly Patch[];
}

export const controls = {
  'insert-if-absent': {
    without: 'the look in the INSERT whether the block is there (LOAD-2)',
    shows: 'doubled',
    faults: ['stop:worker'],
    patches: [
      {
        file: 'workers/clickhouse/schema/index.js',
        find: 'block}) = 0`',
        put: 'block}) >= 0`',
      },
    ],
  },
  'retry-check': {
    without: 'the look whether a batch that was sent again is stored already (LOAD-5)',
    shows: 'doubled',
    faults: ['drop-replies:client-gateway', 'cut:client-gateway'],
    patches: [
      {
        file: 'workers/loader/shard.js',
        find: 'await retries.plan(framed.block)',
        put: 'framed.block',
      },
    ],
  },
  'event-ids': {
    without: 'the look at the event ids of a batch of which as many events are stored (DEDUP-4)',
    shows: 'lost',
    faults: ['kill:client'],
    patches: [
      {
        file: 'workers/loader/dedup.js',
        find: 'isSameFingerprint(known, print)',
        put: 'print.events <= known.events',
      },
    ],
  },
  'ack-before-durable': {
    without: "the gateway's wait for JetStream's ack (INGEST-1)",
    shows: 'lost',
    faults: ['half-open:gateway-nats'],
    patches: [
      {
        file: 'gateway/log/publisher.js',
        find: 'metrics.sent(payload.length);',
        // A position that no client has heard of yet: one below the watermark would be refused.
        put: "metrics.sent(payload.length); { const { settle } = message; message.settle = () => {}; settle({ stream: 'EV_' + message.subject.split('.')[1], sequence: 2n ** 50n }); }",
      },
    ],
  },
} as const satisfies Readonly<Record<string, Control>>;

export type ControlName = keyof typeof controls;
