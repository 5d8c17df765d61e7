/** What the engine runs in place of a client's statement: nothing, the statement, or one that reads its data from the spool. */
import { writeFile } from 'node:fs/promises';
import { mayHaveStructure, structureRefusal } from './column-texts.js';
import type { Engine } from './engine.js';
import { EngineError } from './engine-error.js';
import { endsWithRequest, type InlineInsert, inlineInsert, onlyReads, refusal } from './refused.js';
import { spoolDatabase, spooled } from './rights.js';
import { inlineData, inlineInput, quoted, quotedName, readFromSpool } from './statement.js';

/** So much of a statement goes to the parser; more is data behind it. */
const maxParsedChars = 256 * 1024;

/** Where a body goes, and whether it did. */
export interface SpoolPlace {
  readonly number: number;
  readonly file: string;
  used: boolean;
}

/** A new file, for its owner alone. */
export const spoolFlags = { flags: 'wx', flag: 'wx', mode: 0o600 } as const;

/** What a request says beside its statement. */
export interface Asked {
  readonly database: string;
  readonly parameters: Record<string, string>;
  /** It came by GET. */
  readonly readOnly: boolean;
}

/** What the engine is to run instead of a statement; undefined: nothing. @throws EngineError it is not run */
export async function admitted(
  engine: Engine,
  statement: string,
  asked: Asked,
  body: SpoolPlace,
): Promise<string | undefined> {
  const data = inlineData(statement);
  const parsed = data === undefined ? statement : statement.slice(0, maxParsedChars);
  const normalized = await engine.normalized(parsed, body.used);
  if (endsWithRequest(normalized)) return undefined;
  await checkRights(engine, normalized, asked, body);
  if (body.used) return fromSpool(statement, body);
  if (/^INSERT\b.*\binput\(/s.test(normalized)) return insertOfInput(engine, statement, normalized, body);
  const insert = inlineInsert(normalized);
  if (insert === undefined) return statement;
  if (data === undefined)
    throw new EngineError(
      62,
      'It is not clear where the data of the INSERT begins: leave out comments. (SYNTAX_ERROR)',
    );
  await store(body, data);
  return insertFromSpool(engine, insert, asked.database, body.number);
}

/** @throws EngineError the statement is not run */
async function checkRights(
  engine: Engine,
  normalized: string,
  { database, parameters, readOnly }: Asked,
  { used }: SpoolPlace,
): Promise<void> {
  if (readOnly && !onlyReads(normalized)) {
    throw new EngineError(164, 'GET only reads: Cannot execute query in readonly mode. Use POST. (READONLY)');
  }
  const why =
    database === spoolDatabase
      ? `${spoolDatabase} is the server's own database`
      : await refusalOf(engine, normalized, parameters, used);
  if (why !== undefined) throw new EngineError(497, `Not enough privileges: ${why}. (ACCESS_DENIED)`);
}

async function refusalOf(
  engine: Engine,
  normalized: string,
  parameters: Asked['parameters'],
  withData: boolean,
): Promise<string | undefined> {
  const why = refusal(normalized);
  if (why !== undefined || !mayHaveStructure(normalized)) return why;
  return structureRefusal(normalized, await engine.tree(normalized, parameters, withData));
}

async function store(body: SpoolPlace, data: string): Promise<void> {
  body.used = true;
  await writeFile(body.file, data, spoolFlags);
}

/** The statement, with the body's place in the spool for its input(). */
const fromSpool = (statement: string, { number }: SpoolPlace): string =>
  readFromSpool(statement, (format, structure) => spooled(number, format, structure));

/** Of an INSERT that reads input(), with its data behind it. */
async function insertOfInput(engine: Engine, statement: string, normalized: string, body: SpoolPlace): Promise<string> {
  const input = inlineInput(statement);
  if (input === undefined || (await engine.normalized(input.statement, true)) !== normalized)
    throw new EngineError(62, 'Give an INSERT that reads input() in the URL, and its data in the body. (SYNTAX_ERROR)');
  await store(body, input.data);
  return fromSpool(input.statement, body);
}

/** Of an INSERT with its data behind it. */
async function insertFromSpool(
  engine: Engine,
  insert: InlineInsert,
  database: string,
  number: number,
): Promise<string> {
  const { table, columns, settings, format } = insert;
  const { bytes } = await engine.run(`DESCRIBE (SELECT ${columns ?? '*'} FROM ${table})`, {
    format: 'JSONEachRow',
    database,
    parameters: {},
    withData: true,
  });
  const described = Buffer.from(bytes).toString().trimEnd().split('\n');
  const structure = described
    .map((line) => JSON.parse(line) as { name: string; type: string })
    .map(({ name, type }) => `${quotedName(name)} ${type}`)
    .join(', ');
  const into = columns === undefined ? table : `${table} (${columns})`;
  return `INSERT INTO ${into}${settings} SELECT * FROM ${spooled(number, format, quoted(structure))}`;
}
