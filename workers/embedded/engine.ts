/**
 * The embedded ClickHouse engine: a few sessions on one data folder. A session runs one statement at a time (FACT-12). With several, a
 * look-up does not wait for a long insert.
 *
 * A statement holds one thread of libuv's pool until it ends, and files and compression need that pool too. So there is one session
 * less than threads. One session is reserved for statements with data: long questions never stop a loader.
 */
import { threadPoolSize } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { makeFolder } from '../../lib/make-folder.js';
import { EngineError } from './engine-error.js';
import { inUse, lockHolder } from './folder-lock.js';
import { type ClientRights, writeRights } from './rights.js';
import { createSessionPlaces } from './session-places.js';
import { type EngineResult, openSessions, type RunOptions } from './sessions.js';

export interface Engine {
  readonly version: string;
  /** @throws EngineError */
  run(statement: string, options: RunOptions): Promise<EngineResult>;
  /**
   * One statement as the engine's parser writes it: on one line, without comments and data.
   * @throws EngineError a text that is no statement, or more than one
   */
  normalized(statement: string, withData: boolean): Promise<string>;
  /**
   * The tree of a statement that {@link normalized} has written: EXPLAIN AST as TSV.
   * @throws EngineError
   */
  tree(normalized: string, parameters: Record<string, string>, withData: boolean): Promise<string>;
  /** Refuses what comes now, waits for what is running, then closes the data folder. */
  close(): Promise<void>;
}

/** Sessions, and so statements that run at the same time. */
const sessionsFor = (threads: number): number => Math.min(8, Math.max(2, threads - 1));

export interface EngineOptions {
  /** Where the bodies of statements lie (rights.ts). */
  readonly spoolFolder: string;
  /** Where the engine's configuration is written. */
  readonly rightsFolder: string;
  /** What statements may do. @default see rights.ts */
  readonly client?: ClientRights;
  /** Of libuv's pool. @default as set */
  readonly threads?: number;
}

/** The library, which loads the engine. @throws UsageError when it is not installed */
const loadEngine = (): Promise<typeof import('chdb')> =>
  import('chdb').catch((error: unknown) => {
    throw new UsageError(
      'The embedded ClickHouse (npm package chdb) cannot be loaded: run `npm ci` on Linux or macOS with glibc, or give a ' +
        `real ClickHouse by --clickhouse-url. (${String(error).split('\n')[0]})`,
    );
  });

const textOf = ({ bytes }: EngineResult): string => Buffer.from(bytes).toString().replace(/\n$/, '');

/**
 * Opens a data folder.
 * @throws UsageError when the engine is not installed, or another process has the folder
 */
export async function openEngine(folder: string, options: EngineOptions): Promise<Engine> {
  const { spoolFolder, rightsFolder, client, threads = threadPoolSize() } = options;
  const chdb = await loadEngine();
  makeFolder(folder);
  const rights = writeRights(rightsFolder, client);
  const holder = lockHolder(folder);
  if (holder !== undefined) throw inUse(folder, holder);
  const sessions = openSessions(chdb, folder, { rights, spoolFolder, count: sessionsFor(threads) });
  const places = createSessionPlaces(sessions.slots);

  const run = async (statement: string, options: RunOptions): Promise<EngineResult> => {
    const { withData, readOnly = false } = options;
    // What changes nothing runs on the reader, and holds a place all the same.
    const work = (): Promise<EngineResult> =>
      places.withSlot(withData, (slot) => sessions.run(readOnly ? sessions.reader : slot, statement, options));
    return readOnly ? places.inTurn(work) : work();
  };

  return {
    version: sessions.version,
    run,
    async normalized(statement, withData) {
      const question = 'SELECT formatQuerySingleLine({statement:String})';
      const asked = { format: 'TSVRaw', database: 'default', parameters: { statement }, withData };
      return run(question, asked).then(textOf, (error: EngineError) => {
        // The parser's words, without our question around them.
        const words = error.message.replace(/: In scope SELECT format[\s\S]*?(?= \(\w+\)$|$)/, '');
        throw new EngineError(error.clickhouseCode, words);
      });
    },
    async tree(normalized, parameters, withData) {
      return textOf(
        await run(`EXPLAIN AST ${normalized}`, { format: 'TSV', database: 'default', parameters, withData }),
      );
    },
    async close() {
      await places.close();
      sessions.close();
    },
  };
}
