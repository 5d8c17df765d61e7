/**
 * Text for a terminal. Text of customers and operators (events, notes, ids) may hold sequences that a terminal obeys: they move the
 * cursor, change the title, or hide other text. Terminals get them escaped; files and pipes get them unchanged.
 */

/** Control characters but for tab and line feed, and the marks that change the direction of text. */
const controls = /(?![\t\n])[\p{Cc}\p{Bidi_Control}]/gu;

/** With control characters as `\x1b` or `\u202e`. */
export const shown = (text: string): string =>
  text.replace(controls, (character) => {
    const code = character.charCodeAt(0);
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
  });

/** Whether the text has characters that a terminal obeys; tab and line feed count, too. */
export const hasControls = (text: string): boolean => /[\p{Cc}\p{Bidi_Control}]/u.test(text);

type Output = Pick<NodeJS.WriteStream, 'isTTY' | 'write'>;

/** Writes text, escaped when the output is a terminal. @returns as `write` does */
export const print = (text: string, out: Output = process.stdout): boolean => out.write(out.isTTY ? shown(text) : text);

/** The word as a shell reads it back: in quotes where it has characters that shells give a meaning. */
export const shellWord = (word: string): string =>
  /^[A-Za-z0-9_./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
