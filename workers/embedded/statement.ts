/**
 * What the HTTP interface does to a statement before the embedded engine gets it. Pure.
 */

/** Settings of ClickHouse's HTTP layer itself: the engine behind it does not know them, or must not see them. */
const httpOnly =
  /^(?:query|query_id|database|default_format|user|password|role|session_id|session_timeout|session_check|compress|decompress|enable_http_compression|wait_end_of_query|send_progress_in_http_headers|http_.*|cancel_http_readonly_queries_on_client_close|buffer_size|quota_key|stacktrace|param_.*)$/;

/** `input('structure')`, with the structure as a quoted SQL string. */
const inputFunction = /\binput\s*\(\s*('(?:[^'\\]|\\.|'')*')\s*\)/;

/** As a text of SQL. */
export const quoted = (text: string): string => `'${text.replace(/\\/g, '\\\\').replace(/'/g, "\\'")}'`;

/** As a name of SQL. */
export const quotedName = (name: string): string => `\`${name.replace(/[`\\]/g, '\\$&')}\``;

/**
 * An INSERT … FROM input('structure') FORMAT F reads the spool instead: the embedded engine cannot take binary data inline (FACT-4),
 * but reads it from a file.
 * @param source the table that holds the body, of a format and a structure (as SQL)
 */
export function readFromSpool(statement: string, source: (format: string, structure: string) => string): string {
  const format = /\bFORMAT\s+(\w+)\s*;?\s*$/i.exec(statement);
  const structure = inputFunction.exec(statement)?.[1];
  if (format === null || structure === undefined) {
    throw new Error('a statement with data must read it by input(…) and end with FORMAT <name>');
  }
  return statement
    .slice(0, format.index)
    .replace(inputFunction, () => source(format[1] ?? '', structure))
    .trimEnd();
}

/** `INSERT INTO t (…)` before the data in the statement itself. */
const insertOfData = /^\s*INSERT\s+INTO\s+[^;'()]*?(?:\([^;']*?\)[^;'()]*?)?(?=(?:FORMAT\s+\w+|VALUES)\b)/i;

/** The data behind an INSERT in its text; undefined: there is none, or its beginning is unclear. */
export function inlineData(statement: string): string | undefined {
  const head = insertOfData.exec(statement)?.[0];
  if (head === undefined) return undefined;
  return statement.slice(head.length).replace(/^(?:VALUES|FORMAT\s+\w+[^\S\n]*\n?)/i, '');
}

/** The same of an INSERT that reads `input()`: its statement up to the FORMAT, and the data. */
export function inlineInput(statement: string): { readonly statement: string; readonly data: string } | undefined {
  const match = /^(.*?\binput\s*\(.*?\bFORMAT\s+\w+)[^\S\n]*\n?(.*)$/is.exec(statement);
  return match === null ? undefined : { statement: match[1] ?? '', data: match[2] ?? '' };
}

/** Settings from the URL go to the end of the statement, as the engine has no other place that is per query. */
export function withSettings(statement: string, url: URLSearchParams): string {
  // CREATE … SETTINGS would be settings of the table; the others take none.
  if (/^\s*(?:CREATE|USE|SET|SYSTEM)\b/i.test(statement)) return statement;
  const settings: string[] = [];
  for (const [name, value] of url) {
    if (httpOnly.test(name)) continue;
    if (!/^\w+$/.test(name)) throw new Error(`"${name}" is not the name of a setting`);
    settings.push(`${name} = ${/^-?\d+(?:\.\d+)?$/.test(value) ? value : quoted(value)}`);
  }
  const bare = statement.replace(/\s*;?\s*$/, '');
  if (settings.length === 0) return bare;
  // After its FORMAT a statement may have settings once.
  const join = /\bFORMAT\s+\w+\s+SETTINGS\b/i.test(codeOf(bare)) ? ',' : 'SETTINGS';
  // On a line of their own: a statement may end with a comment.
  return `${bare}\n${join} ${settings.join(', ')}`;
}

/** The statement with spaces for what is no SQL of its own: comments, texts, quoted names. */
const codeOf = (statement: string): string =>
  statement.replace(/--[^\n]*|\/\*[\s\S]*?\*\/|(['"`])(?:\\[\s\S]|(?!\1)[^\\])*\1/g, (text) => ' '.repeat(text.length));

const escapes: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', b: '\b', f: '\f', '0': '\0' };

/** Query parameters travel TSV-escaped (`param_name=…`); the engine binds plain values. */
export function parametersOf(url: URLSearchParams): Record<string, string> {
  const parameters: Record<string, string> = {};
  for (const [name, value] of url) {
    if (name.startsWith('param_')) {
      parameters[name.slice(6)] = value.replace(/\\(.)/gs, (_, c: string) => escapes[c] ?? c);
    }
  }
  return parameters;
}
