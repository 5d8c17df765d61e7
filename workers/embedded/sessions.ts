/** Sessions of the engine on one data folder: opens them, runs a statement on one, and keeps each usable. */
import type { Session } from 'chdb';
import { UsageError } from '../../lib/errors.js';
import { engineErrorOf } from './engine-error.js';
import { inUse, lockHolder } from './folder-lock.js';
import { type RightsFiles, spoolView } from './rights.js';

/** A session, and the database that it is in. */
export interface OpenSession {
  session: Session;
  database: string;
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

export interface Sessions {
  readonly version: string;
  /** For all statements. */
  readonly slots: readonly OpenSession[];
  /** Changes nothing. */
  readonly reader: OpenSession;
  /** @throws EngineError */
  run(slot: OpenSession, statement: string, options: RunOptions): Promise<EngineResult>;
  /** Closes the data folder. No statement may run: closing a session under one aborts the engine. */
  close(): void;
}

export interface SessionOptions {
  readonly rights: RightsFiles;
  /** Where the bodies of statements lie. */
  readonly spoolFolder: string;
  readonly count: number;
}

/** @throws UsageError when another process has the folder, or the engine cannot open it */
export function openSessions(
  engine: typeof import('chdb'),
  folder: string,
  { rights, spoolFolder, count }: SessionOptions,
): Sessions {
  const open = (config: string): Session =>
    new engine.Session(folder, { connectionArgs: [...engineArguments, `--config-file=${config}`] });
  const all = new Set<Session>();

  const openSession = (): Session => {
    const session = open(rights.during);
    all.add(session);
    return session;
  };

  const openReader = (): Session => {
    const session = openSession();
    // Unless its rights are that strict already: then it cannot be set.
    if (session.query("SELECT getSetting('readonly')", 'TSV').trim() === '0') session.query('SET readonly = 2', 'TSV');
    return session;
  };

  function makeSpoolView(): void {
    const maker = open(rights.before);
    try {
      for (const statement of spoolView(spoolFolder)) maker.query(statement, 'TSV');
    } finally {
      maker.close();
    }
  }

  function openAll(): { readonly reader: OpenSession; readonly slots: OpenSession[] } {
    try {
      makeSpoolView();
      const reader = { session: openReader(), database: 'default' };
      return { reader, slots: Array.from({ length: count }, () => ({ session: openSession(), database: 'default' })) };
    } catch (error) {
      if (lockHolder(folder) !== undefined) throw inUse(folder, 'another process');
      throw new UsageError(`The embedded ClickHouse cannot open ${folder}: ${String(error).split('\n')[0]}`);
    }
  }

  const { reader, slots } = openAll();

  /**
   * A statement that fails when it has begun to answer leaves what it had of its answer in the session, and the next answer
   * of that session begins with it. So a session is used again only when it answers as it should.
   */
  const clean = async (slot: OpenSession): Promise<void> => {
    for (let i = 0; i < 2; i++) {
      const answer = await slot.session.queryAsync('SELECT 1', { format: 'TSV' }).catch(() => undefined);
      if (answer?.text() === '1\n') return;
    }
    const fresh = slot === reader ? openReader() : openSession();
    all.delete(slot.session);
    slot.session.close();
    slot.session = fresh;
    slot.database = 'default';
  };

  const runOn = async (
    slot: OpenSession,
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
      throw engineErrorOf(error);
    }
  };

  return {
    version: (slots[0] as OpenSession).session.query('SELECT version()', 'TSV').trim(),
    slots,
    reader,
    run: runOn,
    close() {
      for (const session of all) session.close();
    },
  };
}
