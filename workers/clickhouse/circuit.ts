/**
 * A circuit breaker before ClickHouse. A worker of many shards does not hammer a server that is down, and its shards do not each wait
 * for a time-out to find that out.
 *
 *   CIRCUIT-1  Only transient failures count. A statement that ClickHouse refuses for its content, its size, the rights or a running
 *       query of its name was answered. So was one that it refuses with an unlisted error.
 *   CIRCUIT-2  It opens when more than half of the last statements failed, and then nothing is sent: statements fail at once.
 *   CIRCUIT-3  After a while it is half open: it sends one statement, and the others wait for its result. A failure opens it again, for
 *       longer.
 *   CIRCUIT-4  A circuit with a probe does not wait for a statement: it probes as soon as it may, and wakes waiting callers when it
 *       closes. So no back-off adds to the time that the server was away.
 *   CIRCUIT-5  It knows nothing of blocks. To the loader an INSERT that was held back here has failed like any other: only reading back
 *       shows whether the block is stored (LOAD-2, LOAD-3).
 */
import {
  CircuitState,
  CountBreaker,
  circuitBreaker,
  DelegateBackoff,
  handleWhen,
  isBrokenCircuitError,
} from 'cockatiel';
import { backOff } from '../../lib/back-off.js';
import type { Logger } from '../../lib/logger.js';
import { StatementError } from './errors.js';

export interface CircuitOptions {
  /** What goes through it, for logs and metrics. */
  readonly name: string;
  readonly logger: Logger;
  /** A cheap statement that tells whether it works again; sent through the circuit whenever one may go. */
  readonly probe?: () => Promise<unknown>;
  /** It works again. */
  readonly onClosed?: () => void;
  /** Monotonic, ms. @default performance.now */
  readonly now?: () => number;
  /** In [0, 1). @default Math.random */
  readonly random?: () => number;
}

export interface CircuitStats {
  /** 0: closed, all is sent; 1: half open, one is on its way; 2: open, nothing is sent. */
  readonly state: 0 | 1 | 2;
  /** Times that it entered this state. */
  readonly closed: number;
  readonly halfOpen: number;
  readonly open: number;
  /** Statements that were not sent. */
  readonly heldBack: number;
}

export interface Circuit {
  /** Runs `work`, unless the circuit is open. @throws StatementError, `unsent` when it was not run */
  run<T>(work: () => Promise<T>): Promise<T>;
  stats(): CircuitStats;
  /** Probes no more. */
  close(): void;
}

/** It opens when more than half of the last six, and at least three, failed. */
const lastCalls = 6;
const minCalls = 3;
const failureShare = 0.5;
/** How long it stays open, ms, doubling: a refused connection is cheap, a refused block costs as much as a stored one. */
const stays = { unanswered: { first: 200, last: 800 }, answered: { first: 500, last: 4_000 } } as const;

export function createCircuit(options: CircuitOptions): Circuit {
  const { name, logger, probe, now = () => performance.now(), random = Math.random } = options;
  const counts = { closed: 0, halfOpen: 0, open: 0, heldBack: 0 };
  let state: CircuitStats['state'] = 0;
  let openSince = 0;
  /** A statement may go at this time. */
  let opensUntil = 0;
  let why: unknown;
  let timer: NodeJS.Timeout | undefined;
  let over = false;

  const backoff = new DelegateBackoff<{ attempt: number; result: object }>(({ attempt, result }) => {
    why = 'error' in result ? result.error : undefined;
    const answered = why instanceof StatementError && why.clickhouseCode !== undefined;
    const ms = backOff(answered ? stays.answered : stays.unanswered, attempt) * (0.75 + random() / 2);
    opensUntil = now() + ms;
    return ms;
  });

  const make = () => {
    const made = circuitBreaker(
      handleWhen((error) => error instanceof StatementError && error.kind === 'transient'), // CIRCUIT-1
      {
        halfOpenAfter: backoff,
        breaker: new CountBreaker({ threshold: failureShare, size: lastCalls, minimumNumberOfCalls: minCalls }),
      },
    );
    made.onStateChange((to) => {
      if (made === policy) changed(to);
    });
    return made;
  };
  let policy = make();

  function changed(to: CircuitState): void {
    const before = state;
    if (to === CircuitState.Open) {
      state = 2;
      counts.open++;
      if (before === 0) {
        openSince = now();
        logger.warn(
          { circuit: name, error: String(why) },
          'ClickHouse is in trouble: it is left alone but for a probe now and then',
        );
      }
      probeLater();
    } else if (to === CircuitState.HalfOpen) {
      state = 1;
      counts.halfOpen++;
    } else {
      state = 0;
      counts.closed++;
      clearTimeout(timer);
      logger.info({ circuit: name, afterMs: Math.round(now() - openSince) }, 'ClickHouse works again');
      options.onClosed?.();
    }
  }

  function probeLater(): void {
    clearTimeout(timer);
    if (probe !== undefined && !over) timer = setTimeout(sendProbe, Math.max(5, opensUntil - now() + 1)).unref();
  }

  /** CIRCUIT-4. A failure opens the circuit again, and the next probe follows from that; one that was too early is put off. */
  function sendProbe(): void {
    if (probe === undefined || over || state !== 2) return;
    run(probe).catch(() => {
      if (state === 2) probeLater();
    });
  }

  async function run<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await policy.execute(work);
    } catch (error) {
      if (!isBrokenCircuitError(error)) throw error;
      // The library measures by the wall clock. After that was set back, the circuit would stay open for as long.
      if (now() >= opensUntil + stays.answered.last) {
        policy = make();
        changed(CircuitState.Closed);
        return run(work);
      }
      counts.heldBack++;
      const ms = Math.max(0, Math.ceil(opensUntil - now()));
      throw new StatementError(
        'transient',
        `ClickHouse is left alone for another ${ms} ms, after: ${String(why)}`,
        undefined,
        why,
        true,
      );
    }
  }

  return {
    run,
    stats: () => ({ state, ...counts }),
    close() {
      over = true;
      clearTimeout(timer);
    },
  };
}
