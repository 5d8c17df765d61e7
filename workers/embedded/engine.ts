/**
 * The embedded ClickHouse engine: a few sessions on one data folder. A session runs one statement at a time, so several of
 * them are what lets a look-up pass a long insert.
 */
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Session } from 'chdb';
import { UsageError } from '../../lib/errors.js';

/** An error of ClickHouse, by its number. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
  constructor(
    readonly clickhouseCode: number,
    message: string,
  ) {
    super(message);
  }
}

export interface EngineResult {
  readonly bytes: Uint8Array;
  readonly rowsRead: number;
  readonly bytesRead: number;
  readonly elapsedSeconds: number;
}

export interface Engine {
  readonly version: string;
  /** @throws EngineError */
  run(
    statement: string,
    options: { readonly format: string; readonly database: string; readonly parameters: Record<string, string> },
  ): Promise<EngineResult>;
  /** Waits for what is running, then closes the data folder. */
  close(): Promise<void>;
}

/** Sessions, and so statements that run at the same time. */
const sessions = 6;
/** Statements that may wait for a session. */
const maxWaiting = 256;

/** For two cores and little memory; a real server has its own configuration. */
const engineArguments = [
  '--background_pool_size=2',
  '--background_schedule_pool_size=4',
  '--background_common_pool_size=2',
  '--background_fetches_pool_size=1',
  '--background_move_pool_size=1',
  '--mark_cache_size=67108864',
  '--uncompressed_cache_size=0',
  '--index_mark_cache_size=16777216',
];

const inUse = (folder: string, by: string): UsageError =>
  new UsageError(`${folder} is in use by ${by}: end it, or give another folder by --clickhouse-data.`);

/**
 * Who has the folder's lock, where the system tells (Linux). The engine's own answer is a line on stderr of its own and an
 * error that does not say why, so it is asked last.
 */
function lockHolder(folder: string): string | undefined {
  try {
    const { ino } = statSync(join(folder, 'status'));
    const held = readFileSync('/proc/locks', 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .find((words) => words[1] === 'FLOCK' && words[5]?.endsWith(`:${ino}`));
    return held === undefined ? undefined : `process ${held[4]}`;
  } catch {
    return undefined;
  }
}

/**
 * Opens a data folder.
 * @throws UsageError when the engine is not installed, or another process has the folder
 */
export async function openEngine(folder: string): Promise<Engine> {
  const chdb = await import('chdb').catch((error: unknown) => {
    throw new UsageError(
      'The embedded ClickHouse (npm package chdb) cannot be loaded: run `npm ci` on Linux or macOS with glibc, or give a ' +
        `real ClickHouse by --clickhouse-url. (${String(error).split('\n')[0]})`,
    );
  });
  mkdirSync(folder, { recursive: true });
  const holder = lockHolder(folder);
  if (holder !== undefined) throw inUse(folder, holder);
  const idle: { session: Session; database: string }[] = [];
  const all: Session[] = [];
  try {
    for (let i = 0; i < sessions; i++) {
      const session = new chdb.Session(folder, { connectionArgs: engineArguments });
      all.push(session);
      idle.push({ session, database: 'default' });
    }
  } catch (error) {
    if (lockHolder(folder) !== undefined) throw inUse(folder, 'another process');
    throw new UsageError(`The embedded ClickHouse cannot open ${folder}: ${String(error).split('\n')[0]}`);
  }
  const waiting: (() => void)[] = [];
  let running = 0;

  const take = async (): Promise<{ session: Session; database: string }> => {
    if (idle.length === 0) {
      if (waiting.length >= maxWaiting)
        throw new EngineError(202, 'Too many simultaneous queries. (TOO_MANY_SIMULTANEOUS_QUERIES)');
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
    return idle.pop() as { session: Session; database: string };
  };

  const errorOf = (error: unknown): EngineError => {
    const message = error instanceof Error ? error.message : String(error);
    const code =
      (error as { clickhouseCode?: number }).clickhouseCode ?? Number(/Code: (\d+)/.exec(message)?.[1] ?? 1002);
    return new EngineError(code, message.replace(/^Code: \d+\. DB::Exception: /, ''));
  };

  return {
    version: (all[0] as Session).query('SELECT version()', 'TSV').trim(),
    async run(statement, { format, database, parameters }) {
      const slot = await take();
      running++;
      try {
        if (slot.database !== database) {
          await slot.session.queryAsync(`USE \`${database.replace(/[`\\]/g, '')}\``, { format: 'TSV' });
          slot.database = database;
        }
        const result =
          Object.keys(parameters).length === 0
            ? await slot.session.queryAsync(statement, { format })
            : await slot.session.queryBindAsync(statement, parameters, { format });
        return {
          bytes: result.bytes(),
          rowsRead: result.rowsRead,
          bytesRead: result.bytesRead,
          elapsedSeconds: result.elapsed,
        };
      } catch (error) {
        throw errorOf(error);
      } finally {
        running--;
        idle.push(slot);
        waiting.shift()?.();
      }
    },
    async close() {
      // Closing a session under a running statement aborts the engine.
      while (running > 0 || waiting.length > 0) await new Promise((resolve) => setTimeout(resolve, 10));
      for (const session of all) session.close();
    },
  };
}
