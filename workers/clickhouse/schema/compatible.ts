/**
 * Decides whether an existing column can hold the values of the contract. A worker adds what is missing and widens what is too
 * narrow. It never narrows, and never rewrites a type that an operator chose and that holds the same values.
 */

/** A parsed type of ClickHouse: `Map(String, LowCardinality(String))`. */
export interface ParsedType {
  readonly name: string;
  /** Arguments as text; types among them are parsed when they are needed. */
  readonly args: readonly string[];
}

export type Fit =
  | { readonly kind: 'fits' }
  /** With this type it holds what it held, and what is wanted. */
  | { readonly kind: 'widen'; readonly to: string }
  /** An operator has to decide. */
  | { readonly kind: 'misfit'; readonly why: string };

const fits: Fit = { kind: 'fits' };
const misfit = (why: string): Fit => ({ kind: 'misfit', why });

/** `Enum8('a, b' = 1)` → name Enum8, one argument. Commas in quotes and brackets do not part. */
export function parseType(text: string): ParsedType {
  const open = text.indexOf('(');
  if (open < 0) return { name: text.trim(), args: [] };
  const inner = text.slice(open + 1, text.lastIndexOf(')'));
  const args: string[] = [];
  let depth = 0;
  let quoted = false;
  let from = 0;
  for (let i = 0; i < inner.length; i++) {
    const char = inner[i];
    if (quoted) {
      if (char === '\\') i++;
      else if (char === "'") quoted = false;
    } else if (char === "'") quoted = true;
    else if (char === '(') depth++;
    else if (char === ')') depth--;
    else if (char === ',' && depth === 0) {
      args.push(inner.slice(from, i).trim());
      from = i + 1;
    }
  }
  const last = inner.slice(from).trim();
  if (last !== '') args.push(last);
  return { name: text.slice(0, open).trim(), args };
}

/** Without the wrappers that change how values are stored, not which. */
function bare(text: string): { type: ParsedType; nullable: boolean } {
  let type = parseType(text);
  let nullable = false;
  while ((type.name === 'LowCardinality' || type.name === 'Nullable') && type.args.length === 1) {
    nullable ||= type.name === 'Nullable';
    type = parseType(type.args[0] as string);
  }
  return { type, nullable };
}

/**
 * @param found as system.columns says
 * @param wanted as columns.ts says
 * @param exact a column by which the loader finds blocks: its times may not lose precision
 */
export function fitOf(found: string, wanted: string, exact = false): Fit {
  if (plain(found) === plain(wanted)) return fits;
  const [have, want] = [bare(found), bare(wanted)];
  if (want.nullable && !have.nullable) return misfit('an absent value would read as an empty one');
  const { name } = want.type;
  if (/^Enum(8|16)$/.test(name)) return enumFit(have, want.type);
  if (/^U?Int\d+$/.test(name) || name === 'Bool') return integerFit(have.type.name, name, wanted);
  if (/^Float\d+$/.test(name)) return floatFit(have.type.name, name, wanted);
  if (name === 'DateTime64') return timeFit(have.type, want.type, exact);
  if (name === 'Date') return ['Date', 'Date32'].includes(have.type.name) ? fits : misfit('it holds no dates');
  if (have.type.name !== name) return misfit(`it holds values of another kind`);
  if (name === 'Map' || name === 'Array') return innerFit(have.type, want.type, exact);
  return name === 'String' ? fits : misfit('it holds values of another kind');
}

const plain = (type: string): string => type.replace(/\s+/g, '');

/** Of the arguments of a map or an array. They cannot be widened one by one here, so one that is too narrow is a misfit. */
function innerFit(have: ParsedType, want: ParsedType, exact: boolean): Fit {
  for (const [i, arg] of want.args.entries()) {
    const fit = fitOf(have.args[i] ?? '', arg, exact);
    if (fit.kind !== 'fits') return misfit(`its values are ${have.args[i]}`);
  }
  return fits;
}

/** Least and greatest value; undefined for what is no integer. */
function rangeOf(name: string): readonly [bigint, bigint] | undefined {
  if (name === 'Bool') return [0n, 1n];
  const [, unsigned, digits] = /^(U?)Int(8|16|32|64|128|256)$/.exec(name) ?? [];
  if (digits === undefined) return undefined;
  const bits = BigInt(digits);
  return unsigned === 'U' ? [0n, (1n << bits) - 1n] : [-(1n << (bits - 1n)), (1n << (bits - 1n)) - 1n];
}

const holds = (outer: readonly [bigint, bigint], inner: readonly [bigint, bigint]): boolean =>
  outer[0] <= inner[0] && inner[1] <= outer[1];

function integerFit(found: string, name: string, wanted: string): Fit {
  const [have, want] = [rangeOf(found), rangeOf(name)];
  if (have === undefined || want === undefined) return misfit('it holds no integers');
  // A Bool turns any number into true.
  if (found === 'Bool') return misfit('it holds true and false alone');
  if (holds(have, want)) return fits;
  return holds(want, have) ? { kind: 'widen', to: wanted } : misfit('it holds other numbers');
}

function floatFit(found: string, name: string, wanted: string): Fit {
  if (!/^Float(32|64)$/.test(found)) return misfit('it holds no floating point numbers');
  return found === 'Float64' || name === 'Float32' ? fits : { kind: 'widen', to: wanted };
}

/** Any precision will do for a time of an event: the operator chose it. One by which the loader tells messages apart keeps its own. */
function timeFit(have: ParsedType, want: ParsedType, exact: boolean): Fit {
  if (have.name !== 'DateTime64') return misfit('it does not hold these times');
  if (exact && Number(have.args[0]) < Number(want.args[0]))
    return misfit('its precision is too low to tell messages apart');
  return fits;
}

/** Labels by their number. */
function labelsOf({ args }: ParsedType): Map<number, string> {
  const labels = new Map<number, string>();
  for (const arg of args) {
    const [, label, number] = /^('(?:[^'\\]|\\.)*')\s*=\s*(-?\d+)$/.exec(arg) ?? [];
    if (label !== undefined) labels.set(Number(number), label);
  }
  return labels;
}

function enumFit({ type, nullable }: ReturnType<typeof bare>, want: ParsedType): Fit {
  // Labels are stored as text, or as their numbers.
  if (type.name === 'String') return fits;
  const range = rangeOf(type.name);
  const wanted = labelsOf(want);
  if (range !== undefined && type.name !== 'Bool') {
    const all = [...wanted.keys()].every((number) => holds(range, [BigInt(number), BigInt(number)]));
    return all ? fits : misfit('it does not hold all of the numbers');
  }
  if (!/^Enum(8|16)$/.test(type.name)) return misfit('it holds no labels');
  const union = labelsOf(type);
  const numbers = new Map([...union].map(([number, label]) => [label, number]));
  let missing = 0;
  for (const [number, label] of wanted) {
    const [has, at] = [union.get(number), numbers.get(label)];
    if (has === label) continue;
    if (has !== undefined) return misfit(`its value ${number} is ${has}, and should be ${label}`);
    if (at !== undefined) return misfit(`its label ${label} is ${at}, and should be ${number}`);
    union.set(number, label);
    missing++;
  }
  if (missing === 0) return fits;
  const wide = [...union.keys()].some((number) => number < -128 || number > 127);
  const values = [...union].sort(([a], [b]) => a - b).map(([number, label]) => `${label} = ${number}`);
  const to = `${wide || type.name === 'Enum16' ? 'Enum16' : 'Enum8'}(${values.join(', ')})`;
  return { kind: 'widen', to: nullable ? `Nullable(${to})` : to };
}
