/** Errors of the engine, and those that http.ts gives in its place. */

/** An error of ClickHouse, by its number. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
  constructor(
    readonly clickhouseCode: number,
    message: string,
  ) {
    super(message);
  }
}

/** An error of the library, with ClickHouse's number. */
export const engineErrorOf = (error: unknown): EngineError => {
  const message = error instanceof Error ? error.message : String(error);
  const code =
    (error as { clickhouseCode?: number }).clickhouseCode ?? Number(/Code: (\d+)/.exec(message)?.[1] ?? 1002);
  return new EngineError(code, message.replace(/^(?:Query failed: )?Code: \d+\. DB::Exception: /, ''));
};

/** ClickHouse's number for a body that stands still. */
export const stoodStill = 209;
