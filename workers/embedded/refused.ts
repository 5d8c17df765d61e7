/**
 * Refuses what the engine's rights do not cover (FACT-14): files that its client writes and reads, a function, and the folders of some
 * table engines. The check reads a statement as the engine's own parser writes it (`formatQuerySingleLine`): one statement, no
 * comments, one spelling.
 *
 * This is a second line of defence: a client that may send statements has the password (http.ts).
 */

/** Quoted texts and names. */
const quotes = /'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`/gs;

/** A statement with its texts empty: what is left are names, quoted ones too. */
export const withoutTexts = (normalized: string): string =>
  normalized.replace(quotes, (text) => (text.startsWith("'") ? "''" : text));

/** What of a statement is SQL: quoted texts and names are empty. */
const bare = (normalized: string): string => normalized.replace(quotes, (text) => `${text[0]}${text[0]}`);

/**
 * file() by its name alone, which higher-order functions and APPLY take for a function, with brackets and an alias; or a parameter in that
 * place, which may hold its name. A column of that name goes there with its table: `t.file`.
 */
const named = '(?:file|\\{\\w+:Identifier\\})(?: AS (?:\\w+|``))?';
const fileAsArgument = new RegExp(`\\w\\((?:${named}|\\(+${named}\\)+(?: AS (?:\\w+|\`\`))?),|\\bAPPLY \\(?file\\b`);

/** `SET` and `USE` end with their request: there is no session that they could last in. */
export const endsWithRequest = (normalized: string): boolean => /^(?:SET|USE)\b/i.test(normalized);

/** Whether a statement is one of those that only read. KILL ends the statements of others, and `readonly` lets it. */
export const onlyReads = (normalized: string): boolean =>
  /^\(*(?:SELECT|WITH|SHOW|DESCRIBE|EXPLAIN|EXISTS|CHECK)\b/.test(normalized);

/** Why a statement is not run; undefined: it is. */
export function refusal(normalized: string): string | undefined {
  const sql = bare(normalized);
  if (/\b(?:INTO OUTFILE|FROM INFILE)\b/.test(sql)) return 'INTO OUTFILE and FROM INFILE are off';
  // Also within a text: the structure of a table is one, and may have defaults.
  if (/\bfile\s*\(/.test(normalized))
    return 'the function file() is off; give a text that holds its name as a parameter';
  if (fileAsArgument.test(sql))
    return 'the function file() is off, also by its name; a column of that name needs its table in front of it';
  if (/^ATTACH\b.* FROM ''/.test(sql)) return 'ATTACH … FROM is off';
  // Its view reads files with the rights of another user.
  if (/\b_spool\b/.test(withoutTexts(normalized))) return "_spool is the server's own database";
  if (/\bdisk\(/.test(sql)) return 'disk() is off';
  const engine = /\bENGINE = (EmbeddedRocksDB|Executable|ExecutablePool|FileLog)\b/.exec(sql)?.[1];
  return engine === undefined ? undefined : `the table engine ${engine} is off`;
}

export interface InlineInsert {
  /** As SQL. */
  readonly table: string;
  /** As SQL, without the brackets; undefined: all. */
  readonly columns: string | undefined;
  /** ` SETTINGS …`, or nothing. */
  readonly settings: string;
  readonly format: string;
}

const name = '(?:`(?:[^`\\\\]|\\\\.)*`|\\w+)';
const value = "(?:'(?:[^'\\\\]|\\\\.)*'|[\\w.+-]+)";
const insert = new RegExp(
  `^INSERT INTO (${name}(?:\\.${name})?)(?: \\((${name}(?:, ${name})*)\\))?( SETTINGS \\w+ = ${value}(?:, \\w+ = ${value})*)? FORMAT (\\w+)$`,
  's',
);

/**
 * An INSERT whose data stands behind it, in its text. The engine looks for further statements in such data: after a blank line, or
 * behind VALUES. So the data goes to the spool like a body.
 */
export function inlineInsert(normalized: string): InlineInsert | undefined {
  const match = insert.exec(normalized);
  if (match === null) return undefined;
  return { table: match[1] ?? '', columns: match[2], settings: match[3] ?? '', format: match[4] ?? '' };
}
