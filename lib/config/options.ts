/**
 * Options: each is defined once, with its type, default and help, and can then be given by flag or by SLUICE_* variable
 * (flag > variable > default). This folder is the only reader of process.env.
 */
import { UsageError } from '../errors.js';
import { parseNumber, parseWhole } from '../number-text.js';
import { parseSize, parseTime } from '../units.js';

type Kind = 'string' | 'int' | 'float' | 'bytes' | 'ms' | 'bool' | 'list';

type ValueOf<K extends Kind> = K extends 'string'
  ? string
  : K extends 'list'
    ? readonly string[]
    : K extends 'bool'
      ? boolean
      : number;

export interface OptionSpec<K extends Kind = Kind> {
  readonly kind: K;
  readonly default: ValueOf<K>;
  /** One sentence, with the unit, for --help and for the docs. */
  readonly help: string;
  /** Bounds of a number, inclusive. */
  readonly min?: number;
  readonly max?: number;
  /** The only values a string may have. */
  readonly choices?: readonly string[];
  /** A string that must not be empty. */
  readonly needed?: true;
}

export type OptionTable = Readonly<Record<string, OptionSpec>>;

/** The resolved, frozen values of a table. */
export type Values<T extends OptionTable> = {
  readonly [N in keyof T]: ValueOf<T[N]['kind']>;
};

const spec =
  <K extends Kind>(kind: K) =>
  (
    def: ValueOf<K>,
    help: string,
    more: Pick<OptionSpec, 'min' | 'max' | 'choices' | 'needed'> = {},
  ): OptionSpec<K> => ({
    kind,
    default: def,
    help,
    ...more,
  });

/** Constructors of specs: `option.int(4, 'Number of …', { min: 1 })`. Bytes take "64MiB", durations "500ms", "10s". */
export const option = {
  string: spec('string'),
  int: spec('int'),
  float: spec('float'),
  bytes: spec('bytes'),
  ms: spec('ms'),
  bool: spec('bool'),
  list: spec('list'),
};

/** `maxBatchBytes` → `--max-batch-bytes`. */
export const flagOf = (name: string): string => `--${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`;

/** `maxBatchBytes` → `SLUICE_MAX_BATCH_BYTES`. */
export const variableOf = (name: string): string => `SLUICE_${name.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase()}`;

/** One option, with the text that was given for it. */
interface Given {
  readonly spec: OptionSpec;
  readonly text: string;
  /** The flag or the variable. */
  readonly origin: string;
}

function refuse({ spec, text, origin }: Given, wanted: string): never {
  throw new UsageError(`${origin}: "${text}" is not ${wanted}. ${spec.help}`);
}

function parse(given: Given): string | number | boolean | string[] {
  const { kind } = given.spec;
  switch (kind) {
    case 'string':
      return parseString(given);
    case 'list':
      return given.text
        .split(',')
        .map((item) => item.trim())
        .filter((item) => item !== '');
    case 'bool':
      if (['true', '1', 'yes', 'on'].includes(given.text)) return true;
      if (['false', '0', 'no', 'off'].includes(given.text)) return false;
      return refuse(given, 'true or false');
    case 'int':
    case 'float':
    case 'bytes':
    case 'ms':
      return parseQuantity(given, kind);
    default: {
      const never: never = kind;
      throw new Error(`${given.origin}: unknown kind ${String(never)}`);
    }
  }
}

function parseString(given: Given): string {
  const { spec, text, origin } = given;
  if (spec.choices !== undefined && !spec.choices.includes(text)) {
    return refuse(given, `one of ${spec.choices.join(', ')}`);
  }
  if (spec.needed === true && text.trim() === '') throw new UsageError(`${origin} is empty. ${spec.help}`);
  return text;
}

type Quantity = 'int' | 'float' | 'bytes' | 'ms';

/** How each kind of number is written, and what it is called when it is not. */
const quantities: Readonly<Record<Quantity, { wanted: string; read: (text: string) => number | undefined }>> = {
  int: { wanted: 'a whole number', read: parseWhole },
  float: { wanted: 'a number', read: parseNumber },
  bytes: { wanted: 'a size such as 64MiB', read: (text) => parseSize(text) },
  ms: { wanted: 'a duration such as 500ms or 10s', read: (text) => parseTime(text) },
};

function parseQuantity(given: Given, kind: Quantity): number {
  const { min, max } = given.spec;
  const { wanted, read } = quantities[kind];
  const value = read(given.text) ?? Number.NaN;
  const isOne = kind === 'float' ? Number.isFinite(value) : Number.isSafeInteger(value);
  if (!isOne) return refuse(given, wanted);
  if ((min !== undefined && value < min) || (max !== undefined && value > max)) {
    return refuse(given, `between ${min ?? '-∞'} and ${max ?? '∞'}`);
  }
  return value;
}

/**
 * Resolves a table once into a complete, frozen object.
 * @param flags what the command line gave, by option name; values as text, or true for a bare boolean flag
 * @param env variables; those of other tables are not looked at here, see {@link refuseUnknownVariables}
 * @throws UsageError that names the flag or variable at fault
 */
export function resolveOptions<T extends OptionTable>(
  table: T,
  flags: Readonly<Record<string, unknown>> = {},
  env: Readonly<Record<string, string | undefined>> = process.env,
): Values<T> {
  const values: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(table)) {
    const flag = flags[name];
    const variable = env[variableOf(name)];
    if (flag !== undefined) {
      values[name] = parse({ spec, text: String(flag), origin: flagOf(name) });
    } else if (variable !== undefined && variable !== '') {
      values[name] = parse({ spec, text: variable, origin: variableOf(name) });
    } else {
      values[name] = spec.default;
    }
  }
  return Object.freeze(values) as Values<T>;
}

/**
 * A SLUICE_* variable that no table knows is a typo that would otherwise be silently ignored.
 * @throws UsageError that names it
 */
export function refuseUnknownVariables(
  tables: readonly OptionTable[],
  env: Readonly<Record<string, string | undefined>> = process.env,
): void {
  const known = new Set(tables.flatMap((table) => Object.keys(table).map(variableOf)));
  for (const name of Object.keys(env)) {
    if (name.startsWith('SLUICE_') && !known.has(name)) {
      throw new UsageError(`${name} is not a setting of Sluice; \`sluice config\` lists them all.`);
    }
  }
}

/** Where programs are looked for. */
export const searchPath = (): string => process.env.PATH ?? '';

/** OpenTelemetry's own switch. */
export const telemetryDisabled = (): boolean => process.env.OTEL_SDK_DISABLED === 'true';

/** For the processes of tests: no telemetry, no settings of the caller's, and servers that Debian keeps out of the PATH. */
export function testEnvironment(): Record<string, string> {
  const kept = Object.entries(process.env).filter(
    ([name, value]) => value !== undefined && !name.startsWith('SLUICE_'),
  );
  return {
    ...(Object.fromEntries(kept) as Record<string, string>),
    OTEL_SDK_DISABLED: 'true',
    PATH: `${searchPath()}:/usr/sbin:/usr/local/sbin`,
  };
}

/** Threads that files, compression and the embedded engine share: libuv's own setting and default. */
export const threadPoolSize = (): number => Number(process.env.UV_THREADPOOL_SIZE) || 4;
