/**
 * Finds texts that the engine later reads as SQL: the structures of table functions, such as `format(CSV, 'a UInt8, b String', …)`. A
 * column in them may have a DEFAULT or an ALIAS that calls what a statement may not. So a structure must be a literal with names and
 * types alone. The check reads the tree of a statement as the engine's own EXPLAIN AST prints it.
 */

import { withoutTexts } from './refused.js';

/** Table functions that take a structure, and where. Undefined: this call gives none. */
const structureOf: Readonly<Record<string, (args: readonly Node[]) => Node | undefined>> = {
  // format(name, [structure], data)
  format: (args) => (args.length > 2 ? args[1] : undefined),
  // Without a structure the first row comes first.
  values: (args) => (args[0]?.what === 'Function tuple' ? undefined : args[0]),
  generaterandom: (args) => args[0],
  input: (args) => args[0],
  null: (args) => args[0],
};

interface Node {
  /** `Function format`, `Literal 'a UInt8'`, as printed, without aliases and numbers of children. */
  readonly what: string;
  readonly children: Node[];
}

const escapes: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', b: '\b', f: '\f', '0': '\0' };
const unescaped = (text: string): string => text.replace(/\\(.)/gs, (_, sign: string) => escapes[sign] ?? sign);

/** @param rows the answer to EXPLAIN AST as TSV, so that no name of a statement breaks a line */
function parseTree(rows: string): Node {
  const root: Node = { what: '', children: [] };
  const path = [root];
  for (const row of rows.split('\n')) {
    const depth = /^ */.exec(row)?.[0].length ?? 0;
    const what = row.trim().replace(/(?: \(alias .*?\))?(?: \(children \d+\))?$/, '');
    const node: Node = { what, children: [] };
    path.length = Math.min(path.length, depth + 1);
    path.at(-1)?.children.push(node);
    path.push(node);
  }
  return root;
}

const functionName = ({ what }: Node): string | undefined => /^Function (\S+)/.exec(what)?.[1];

/** Where a table function may stand. Those in the arguments of one that stands there count too: `loop(format(…))`. */
const tablePlaces = new Set(['TableExpression', 'InsertQuery', 'CreateQuery']);

function fault(name: string, { children }: Node): string | undefined {
  const structure = structureOf[name.toLowerCase()]?.(children[0]?.children ?? []);
  if (structure === undefined) return undefined;
  if (!structure.what.startsWith("Literal \\'"))
    return `the structure of ${name}() is a text in quotes, not an expression`;
  return /\b(?:DEFAULT|ALIAS|MATERIALIZED|EPHEMERAL)\b/i.test(unescaped(unescaped(structure.what)))
    ? `the structure of ${name}() gives names and types of columns, without DEFAULT, ALIAS, MATERIALIZED and EPHEMERAL`
    : undefined;
}

function faultBelow(node: Node, isTablePlace: boolean): string | undefined {
  for (const child of node.children) {
    const name = functionName(child);
    const isTable = name !== undefined && (isTablePlace || tablePlaces.has(node.what.split(' ')[0] ?? ''));
    const found =
      (isTable ? fault(name, child) : undefined) ??
      faultBelow(child, isTable || (isTablePlace && child.what === 'ExpressionList'));
    if (found !== undefined) return found;
  }
  return undefined;
}

const calls = new RegExp(`(?<![\\w.])\`?(?:${Object.keys(structureOf).join('|')})\`?\\(`, 'gi');
const shown = new RegExp(`^ *Function (?:${Object.keys(structureOf).join('|')})(?: |$)`, 'gim');

/** Calls of a function that may take a structure, in a statement as the engine's parser writes it. */
const callsIn = (normalized: string): number => (withoutTexts(normalized).match(calls) ?? []).length;

/** Whether the statement's tree has to be looked at. */
export const mayHaveStructure = (normalized: string): boolean => callsIn(normalized) > 0;

/**
 * Why a statement is not run; undefined: it is.
 * @param normalized the statement as the engine's parser writes it
 * @param rows its tree: the answer to EXPLAIN AST as TSV
 */
export function structureRefusal(normalized: string, rows: string): string | undefined {
  const why = faultBelow(parseTree(rows), false);
  if (why !== undefined) return why;
  // SHOW TABLES WHERE … prints no tree of its condition.
  const seen = (rows.match(shown) ?? []).length;
  return seen < callsIn(normalized) ? 'a table function stands where it cannot be checked: use SELECT' : undefined;
}
