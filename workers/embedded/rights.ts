/**
 * What statements may do to this machine: the engine's users and their rights.
 *
 * The engine starts with one user that may do everything, as a program that embeds it wants. Here it runs statements that came over a
 * socket. So they run as a user without the rights to files, networks, programs and other databases (ClickHouse calls them SOURCES).
 * The data of a client is in the spool, and a view reads it. Only the view's definer may read files, and a statement can choose only a
 * number in the path.
 *
 * A user with the right makes the view each time, before the engine takes statements.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { quoted } from './statement.js';

/** The view of the spool. */
export const spoolDatabase = '_spool';
const definer = 'spool';

const rights = [
  'SELECT, INSERT, ALTER, TRUNCATE, OPTIMIZE, CHECK, SHOW, KILL QUERY, dictGet ON *.*',
  'CREATE DATABASE, CREATE TABLE, CREATE VIEW, CREATE FUNCTION ON *.*',
  'DROP DATABASE, DROP TABLE, DROP VIEW, DROP FUNCTION, UNDROP TABLE ON *.*',
  'SYSTEM MERGES, SYSTEM TTL MERGES, SYSTEM FLUSH, SYSTEM DROP CACHE, SYSTEM SYNC REPLICA, SYSTEM RESTART REPLICA ON *.*',
  ...[
    'MergeTree',
    'Memory',
    'Null',
    'Log',
    'TinyLog',
    'StripeLog',
    'Set',
    'Join',
    'Buffer',
    'Merge',
    'GenerateRandom',
  ].map((engine) => `TABLE ENGINE ON ${engine}`),
];

const escaped = (text: string): string => text.replace(/[<>&]/g, (sign) => `&#${sign.charCodeAt(0)};`);

const user = (name: string, grants: readonly string[], more = ''): string =>
  `<${name}><password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>${more}` +
  `${grants.length === 0 ? '' : `<grants>${grants.map((query) => `<query>${query}</query>`).join('')}</grants>`}</${name}>`;

/** Rights of the user that statements run as. */
export interface ClientRights {
  /** `SELECT ON a.*`, as they stand behind GRANT. */
  readonly grants: readonly string[];
  /** More settings of its profile, as XML. @default none */
  readonly profile?: string;
  /** More of the server's configuration, as XML. @default none */
  readonly server?: string;
}

/** Values are literals: as expressions they could call what statements may not. */
const literals = ['input_format_values_interpret_expressions', 'input_format_values_deduce_templates_of_expressions'];

/** Settings that name a file to read or write, an address to ask, or a text to run as a statement. They stay empty. */
const ways = [
  'format_template_row',
  'format_template_resultset',
  'input_format_record_errors_file_path',
  'format_avro_schema_registry_url',
  'allow_experimental_eval_table_function',
  'additional_result_filter',
  'additional_table_filters',
  'parallel_replicas_custom_key',
];
/** A schema of Protobuf or Cap'n Proto is given as a text, not as a file or as the answer to a statement. */
const schemaSource = 'format_schema_source';

const fixed =
  literals.map((name) => `<${name}>0</${name}>`).join('') +
  `<${schemaSource}>string</${schemaSource}>` +
  `<constraints>${[...literals, ...ways, schemaSource].map((name) => `<${name}><const/></${name}>`).join('')}</constraints>`;

const users = (profile: string, ...list: readonly string[]): string =>
  `<clickhouse><profiles><default>${profile}</default></profiles><quotas><default></default></quotas>` +
  `<users>${list.join('\n')}</users></clickhouse>\n`;

export interface RightsFiles {
  /** Configuration of an engine in which everything is allowed, to run {@link spoolView}. */
  readonly before: string;
  /** Configuration of the engine that runs the statements of clients. */
  readonly during: string;
}

/** Writes the configurations to a folder, which is made when missing. */
export function writeRights(folder: string, client: ClientRights = { grants: rights }): RightsFiles {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const write = (name: string, text: string): string => {
    const file = resolve(folder, name);
    writeFileSync(file, text, { mode: 0o600 });
    return file;
  };
  const config = (name: string, usersFile: string, more = ''): string =>
    write(
      name,
      `<clickhouse><users_config>${escaped(usersFile)}</users_config><access_control_improvements>` +
        '<enable_read_write_grants>true</enable_read_write_grants>' +
        '<table_engines_require_grant>true</table_engines_require_grant>' +
        `</access_control_improvements>${more}</clickhouse>\n`,
    );
  const mayRead = user(definer, ['GRANT READ ON FILE', 'GRANT CREATE TEMPORARY TABLE ON *.*']);
  const statements = user('default', [
    ...client.grants.map((right) => `GRANT ${right}`),
    `REVOKE ALL ON ${spoolDatabase}.*`,
    `GRANT SELECT ON ${spoolDatabase}.*`,
  ]);
  const maker = user('default', [], '<access_management>1</access_management>');
  return {
    before: config('before.xml', write('before-users.xml', users('', maker, mayRead))),
    during: config(
      'during.xml',
      write('during-users.xml', users(`${fixed}${client.profile ?? ''}`, statements, mayRead)),
      client.server,
    ),
  };
}

/** The name of a body in the spool. */
export const spoolFile = (folder: string, number: number): string => join(folder, `${number}.bin`);

/** Statements that make the view. */
export const spoolView = (folder: string): string[] => [
  `CREATE DATABASE IF NOT EXISTS ${spoolDatabase}`,
  `CREATE OR REPLACE VIEW ${spoolDatabase}.body DEFINER = ${definer} SQL SECURITY DEFINER AS ` +
    `SELECT * FROM file(concat(${quoted(`${resolve(folder)}/`)}, toString({n:UInt64}), '.bin'), {format:String}, {structure:String})`,
];

/** The body of that number, as a table. */
export const spooled = (number: number, format: string, structure: string): string =>
  `${spoolDatabase}.body(n = ${number}, format = ${quoted(format)}, structure = ${structure})`;
