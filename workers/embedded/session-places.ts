/** Which statement runs on which session, and which wait. */
import { EngineError } from './engine-error.js';
import type { OpenSession } from './sessions.js';

/** Statements that may wait for a session. */
const maxWaiting = 256;
/** … and for the one that may change nothing. */
const maxReadersWaiting = 64;

export interface SessionPlaces {
  /**
   * Runs work when a session is free for it; what stores data goes first, and one session is for that alone.
   * @throws EngineError too many wait, or {@link close} was called
   */
  withSlot<T>(withData: boolean, work: (slot: OpenSession) => Promise<T>): Promise<T>;
  /** Runs work that changes nothing: one after the other. @throws EngineError too many wait */
  inTurn<T>(work: () => Promise<T>): Promise<T>;
  /** Refuses what comes now. Resolves when nothing runs or waits. */
  close(): Promise<void>;
}

export function createSessionPlaces(slots: readonly OpenSession[]): SessionPlaces {
  const idle = [...slots];
  const waiting: { readonly withData: boolean; readonly go: (slot: OpenSession) => void }[] = [];
  /** Statements that run, and those of them that store no data. */
  let running = 0;
  let reading = 0;
  let closing = false;
  /** Statements that change nothing share a session, one after the other. */
  let lastRead: Promise<unknown> = Promise.resolve();
  let readers = 0;

  const mayRun = (withData: boolean): boolean => idle.length > 0 && (withData || reading < slots.length - 1);

  const take = (withData: boolean): OpenSession => {
    running++;
    if (!withData) reading++;
    return idle.pop() as OpenSession;
  };

  const place = async (withData: boolean): Promise<OpenSession> => {
    if (closing) throw new EngineError(236, 'The server is shutting down. (ABORTED)');
    if (mayRun(withData)) return take(withData);
    if (waiting.length >= maxWaiting)
      throw new EngineError(202, 'Too many simultaneous queries. (TOO_MANY_SIMULTANEOUS_QUERIES)');
    return new Promise((go) => waiting.push({ withData, go }));
  };

  const giveBack = (slot: OpenSession, withData: boolean): void => {
    running--;
    if (!withData) reading--;
    idle.push(slot);
    const one = waiting.find(({ withData }) => withData) ?? waiting[0];
    if (one === undefined || !mayRun(one.withData)) return;
    waiting.splice(waiting.indexOf(one), 1);
    one.go(take(one.withData));
  };

  return {
    async withSlot(withData, work) {
      const slot = await place(withData);
      try {
        return await work(slot);
      } finally {
        giveBack(slot, withData);
      }
    },
    async inTurn(work) {
      if (readers >= maxReadersWaiting)
        throw new EngineError(202, 'Too many simultaneous queries by GET. (TOO_MANY_SIMULTANEOUS_QUERIES)');
      readers++;
      const mine = lastRead.then(work);
      lastRead = mine.catch(() => undefined);
      try {
        return await mine;
      } finally {
        readers--;
      }
    },
    async close() {
      closing = true;
      while (running > 0 || waiting.length > 0 || readers > 0) await new Promise((resolve) => setTimeout(resolve, 10));
    },
  };
}
