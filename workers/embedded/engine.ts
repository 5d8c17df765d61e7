/**
 * The embedded ClickHouse engine: a few sessions on one data folder. A session runs one statement at a time (FACT-12). With several, a
 * look-up does not wait for a long insert.
 *
 * A statement holds one thread of libuv's pool until it ends, and files and compression need that pool too. So there is one session
 * less than threads. One session is reserved for statements with data: long questions never stop a loader.
 */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Session } from 'chdb';
import { threadPoolSize } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { makeFolder } from '../../lib/make-folder.js';
import { type ClientRights, spoolView, writeRights } from './rights.js';

interface Slot {
  session: Session;
  database: string;
}

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

export interface RunOptions {
  readonly format: string;
  readonly database: string;
  readonly parameters: Record<string, string>;
  /** It stores data: it goes before others that wait. */
  readonly withData: boolean;
  /** ClickHouse's `readonly = 2`: it may change nothing but settings of its own. @default false */
  readonly readOnly?: boolean;
}

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
/** Statements that may wait for a session. */
const maxWaiting = 256;
/** … and for the one that may change nothing. */
const maxReadersWaiting = 64;

/** For two cores and little memory; a real server has its own configuration. */
const engineArguments = [
  '--background_pool_size=2',
  '--background_schedule_pool_size=4',
  '--background_common_pool_size=2',
  // Merges at a time per thread: more of them share the two threads, and each holds its own memory.
  '--background_merges_mutations_concurrency_ratio=1',
  '--background_fetches_pool_size=1',
  '--background_move_pool_size=1',
  '--mark_cache_size=67108864',
  '--uncompressed_cache_size=0',
  '--index_mark_cache_size=16777216',
  '--primary_index_cache_size=67108864',
  '--query_condition_cache_size=16777216',
  '--compiled_expression_cache_size=16777216',
  // An answer is held in memory before it is sent.
  '--max_result_bytes=268435456',
  '--max_memory_usage=4294967296',
  // As http.ts does it: workers look here how long a server waits for a body that stands still.
  '--http_receive_timeout=4',
];

const inUse = (folder: string, by: string): UsageError =>
  new UsageError(`${folder} is in use by ${by}: end it, or give another folder by --clickhouse-data.`);

/** As /proc/locks writes the numbers of a device. */
const hex = (number: number): string => number.toString(16).padStart(2, '0');

/**
 * Who has the folder's lock, where the system tells (Linux). The engine's own answer is a line on stderr of its own and an
 * error that does not say why, so it is asked last.
 */
function lockHolder(folder: string): string | undefined {
  try {
    // Of another file system, a file may have the same number: on each tmpfs they begin again.
    const { dev, ino } = statSync(join(folder, 'status'));
    const file = `${hex(((dev / 256) & 0xfff) >>> 0)}:${hex((dev & 0xff) | ((dev >>> 12) & 0xfff00))}:${ino}`;
    const held = readFileSync('/proc/locks', 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .find((words) => words[1] === 'FLOCK' && words[5] === file);
    return held === undefined ? undefined : `process ${held[4]}`;
  } catch {
    return undefined;
  }
}

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

/**
 * Opens a data folder.
 * @throws UsageError when the engine is not installed, or another process has the folder
 */
export async function openEngine(folder: string, options: EngineOptions): Promise<Engine> {
  const { spoolFolder, rightsFolder, client, threads = threadPoolSize() } = options;
  const chdb = await import('chdb').catch((error: unknown) => {
    throw new UsageError(
      'The embedded ClickHouse (npm package chdb) cannot be loaded: run `npm ci` on Linux or macOS with glibc, or give a ' +
        `real ClickHouse by --clickhouse-url. (${String(error).split('\n')[0]})`,
    );
  });
  makeFolder(folder);
  const rights = writeRights(rightsFolder, client);
  const holder = lockHolder(folder);
  if (holder !== undefined) throw inUse(folder, holder);
  const idle: Slot[] = [];
  const all = new Set<Session>();
  const open = (): Session => {
    const session = new chdb.Session(folder, {
      connectionArgs: [...engineArguments, `--config-file=${rights.during}`],
    });
    all.add(session);
    return session;
  };
  const openReader = (): Slot => {
    const session = open();
    // Unless its rights are that strict already: then it cannot be set.
    if (session.query("SELECT getSetting('readonly')", 'TSV').trim() === '0') session.query('SET readonly = 2', 'TSV');
    return { session, database: 'default' };
  };
  const sessions = sessionsFor(threads);
  let reader: Slot;
  try {
    const maker = new chdb.Session(folder, { connectionArgs: [...engineArguments, `--config-file=${rights.before}`] });
    try {
      for (const statement of spoolView(spoolFolder)) maker.query(statement, 'TSV');
    } finally {
      maker.close();
    }
    reader = openReader();
    while (idle.length < sessions) idle.push({ session: open(), database: 'default' });
  } catch (error) {
    if (lockHolder(folder) !== undefined) throw inUse(folder, 'another process');
    throw new UsageError(`The embedded ClickHouse cannot open ${folder}: ${String(error).split('\n')[0]}`);
  }
  const waiting: { readonly withData: boolean; readonly go: (slot: Slot) => void }[] = [];
  /** Statements that run, and those of them that store no data. */
  let running = 0;
  let reading = 0;
  let closing = false;

  const mayRun = (withData: boolean): boolean => idle.length > 0 && (withData || reading < sessions - 1);

  const take = (withData: boolean): Slot => {
    running++;
    if (!withData) reading++;
    return idle.pop() as Slot;
  };

  const place = async (withData: boolean): Promise<Slot> => {
    if (closing) throw new EngineError(236, 'The server is shutting down. (ABORTED)');
    if (mayRun(withData)) return take(withData);
    if (waiting.length >= maxWaiting)
      throw new EngineError(202, 'Too many simultaneous queries. (TOO_MANY_SIMULTANEOUS_QUERIES)');
    return new Promise((go) => waiting.push({ withData, go }));
  };

  const giveBack = (slot: Slot, withData: boolean): void => {
    running--;
    if (!withData) reading--;
    idle.push(slot);
    const one = waiting.find(({ withData }) => withData) ?? waiting[0];
    if (one === undefined || !mayRun(one.withData)) return;
    waiting.splice(waiting.indexOf(one), 1);
    one.go(take(one.withData));
  };

  /**
   * A statement that fails when it has begun to answer leaves what it had of its answer in the session, and the next answer
   * of that session begins with it. So a session is used again only when it answers as it should.
   */
  const clean = async (slot: Slot): Promise<void> => {
    for (let i = 0; i < 2; i++) {
      const answer = await slot.session.queryAsync('SELECT 1', { format: 'TSV' }).catch(() => undefined);
      if (answer?.text() === '1\n') return;
    }
    const fresh = slot === reader ? openReader().session : open();
    all.delete(slot.session);
    slot.session.close();
    slot.session = fresh;
    slot.database = 'default';
  };

  const errorOf = (error: unknown): EngineError => {
    const message = error instanceof Error ? error.message : String(error);
    const code =
      (error as { clickhouseCode?: number }).clickhouseCode ?? Number(/Code: (\d+)/.exec(message)?.[1] ?? 1002);
    return new EngineError(code, message.replace(/^(?:Query failed: )?Code: \d+\. DB::Exception: /, ''));
  };

  const runOn = async (
    slot: Slot,
    statement: string,
    { format, database, parameters }: RunOptions,
  ): Promise<EngineResult> => {
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
      await clean(slot);
      throw errorOf(error);
    }
  };

  /** Statements that change nothing share a session, one after the other. */
  let lastRead: Promise<unknown> = Promise.resolve();
  let readers = 0;
  const inTurn = async <T>(work: () => Promise<T>): Promise<T> => {
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
  };

  const run = async (statement: string, options: RunOptions): Promise<EngineResult> => {
    const { withData, readOnly = false } = options;
    const work = async (): Promise<EngineResult> => {
      const slot = await place(withData);
      try {
        return await runOn(readOnly ? reader : slot, statement, options);
      } finally {
        giveBack(slot, withData);
      }
    };
    return readOnly ? inTurn(work) : work();
  };

  return {
    version: (idle[0] as Slot).session.query('SELECT version()', 'TSV').trim(),
    run,
    async normalized(statement, withData) {
      const { bytes } = await run('SELECT formatQuerySingleLine({statement:String})', {
        format: 'TSVRaw',
        database: 'default',
        parameters: { statement },
        withData,
      }).catch((error: EngineError) => {
        // The parser's words, without our question around them.
        throw new EngineError(
          error.clickhouseCode,
          error.message.replace(/: In scope SELECT format[\s\S]*?(?= \(\w+\)$|$)/, ''),
        );
      });
      return Buffer.from(bytes).toString().replace(/\n$/, '');
    },
    async tree(normalized, parameters, withData) {
      const { bytes } = await run(`EXPLAIN AST ${normalized}`, {
        format: 'TSV',
        database: 'default',
        parameters,
        withData,
      });
      return Buffer.from(bytes).toString().replace(/\n$/, '');
    },
    async close() {
      closing = true;
      // Closing a session under a running statement aborts the engine.
      while (running > 0 || waiting.length > 0 || readers > 0) await new Promise((resolve) => setTimeout(resolve, 10));
      for (const session of all) session.close();
    },
  };
}
