/**
 * Numbers from command lines, settings and files, strictly: as JSON writes them. Number() takes "0x10", " 12 ", "+5" and "" too, and a
 * typo would become another number.
 */

/** Plain digits, with a minus sign or without. Undefined: it is none, or not exact as a number. */
export function parseWhole(text: string): number | undefined {
  if (!/^-?(?:0|[1-9]\d*)$/.test(text)) return undefined;
  const value = Number(text);
  return Number.isSafeInteger(value) ? value + 0 : undefined;
}

/** Also with a point or an exponent: "0.25", "1e6". Undefined: it is none, or too great. */
export function parseNumber(text: string): number | undefined {
  if (!/^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/.test(text)) return undefined;
  const value = Number(text);
  return Number.isFinite(value) ? value + 0 : undefined;
}
