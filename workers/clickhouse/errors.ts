/**
 * Errors of ClickHouse, sorted by what a caller can do about them.
 *
 * The class of an error decides what the loader does with a block. `content` may move events to the dead-letter stream (LOAD-6), so it
 * has only errors that the bytes alone can cause. `large` blocks are cut smaller. Errors of the statement, the table or the rights are
 * `fatal`. Errors that pass by themselves (no connection, no space, a read-only replica, too many parts) are `transient`. An unlisted
 * answer is `unclear`: the loader retries for a while, and then examines the bytes too, with more doubt than for `content` (DLQ-5 in
 * dead-letters.ts).
 */
import { ClickHouseError } from '@clickhouse/client';

/**
 * - `busy`: a query of the same id runs
 * - `content`: the data is at fault; the same data fails again
 * - `fatal`: the statement, the table or the rights are at fault; an operator has to act
 * - `large`: the statement needs more memory, rows or time than the server grants; less of the same may pass
 * - `transient`: the outcome is unknown (no connection, time-out, the server is in trouble); it passes by itself
 * - `unclear`: the server answered with an error of which nothing is known here
 */
export type StatementErrorKind = 'busy' | 'content' | 'fatal' | 'large' | 'transient' | 'unclear';

export class StatementError extends Error {
  override readonly name = 'StatementError';
  constructor(
    readonly kind: StatementErrorKind,
    message: string,
    /** ClickHouse's number; undefined when it did not answer. */
    readonly clickhouseCode: number | undefined,
    cause: unknown,
    /** Nothing of the statement has left this process. */
    readonly unsent = false,
  ) {
    super(message, { cause });
  }
}

/** ClickHouse's names of errors that say: these bytes cannot be stored. */
const content =
  /^(?:CANNOT_PARSE_(?!PROTOBUF_SCHEMA)|CANNOT_READ_ALL_DATA|CANNOT_CONVERT_TYPE|CANNOT_INSERT_NULL|BAD_TYPE_OF_FIELD|ATTEMPT_TO_READ_AFTER_EOF|PROTOBUF_(?!FIELD_NOT_REPEATED)|UNKNOWN_PROTOBUF|INCORRECT_DATA|VALUE_IS_OUT_OF_RANGE|UNKNOWN_ELEMENT_OF_ENUM|ARGUMENT_OUT_OF_BOUND|DECIMAL_OVERFLOW|TOO_LARGE_)/;
/** … and: this statement, or this user, will not do. A table that is read-only for now (TABLE_IS_READ_ONLY) is none of them. */
const fatal =
  /^(?:SYNTAX_ERROR|UNKNOWN_(?!EXCEPTION|STATUS)|NO_SUCH_COLUMN|NOT_FOUND_COLUMN|THERE_IS_NO_COLUMN|TYPE_MISMATCH|ILLEGAL_|NOT_IMPLEMENTED|ACCESS_DENIED|DATABASE_ACCESS_DENIED|IP_ADDRESS_NOT_ALLOWED|AUTHENTICATION_FAILED|READONLY|REQUIRED_PASSWORD|WRONG_PASSWORD|SETTING_CONSTRAINT_VIOLATION|QUERY_IS_PROHIBITED|BAD_ARGUMENTS|NUMBER_OF_ARGUMENTS|CANNOT_PARSE_PROTOBUF_SCHEMA|PROTOBUF_FIELD_NOT_REPEATED|DATA_TYPE_INCOMPATIBLE_WITH_PROTOBUF_FIELD|NO_COLUMNS_SERIALIZED_TO_PROTOBUF_FIELDS)/;

/** … and: a smaller statement may do. */
const large =
  /^(?:MEMORY_LIMIT_EXCEEDED|CANNOT_ALLOCATE_MEMORY|TOO_MANY_BYTES|TOO_MANY_ROWS|TOO_MANY_ROWS_OR_BYTES|TIMEOUT_EXCEEDED|TOO_SLOW)$/;
/** … and: the server, its disk, its replicas or the way to it are in trouble, whatever the statement. */
const trouble =
  /TIMEOUT|QUORUM|REPLICA|KEEPER|SOCKET|NETWORK|CONNECTION|DISK|SPACE|CHECKSUM|_PARTS?$|^(?:TABLE_IS_|UNKNOWN_(?:EXCEPTION|STATUS)|STD_EXCEPTION|POCO_EXCEPTION|TOO_MANY_|SERVER_|QUERY_WAS_CANCELLED|ABORTED|CORRUPTED_DATA|CANNOT_(?:READ|WRITE|OPEN|CLOSE|CREATE|SEEK|STAT|FSYNC|TRUNCATE|UNLINK|SCHEDULE|ASSIGN|MUNMAP|PTHREAD)|FILE_|PART_|S3_|AZURE_|RAFT_|LIMIT_EXCEEDED|QUOTA_)/;

/** What a request of the client library ended with, as an error of ours. */
export function sorted(error: unknown): StatementError {
  if (error instanceof StatementError) return error;
  if (error instanceof ClickHouseError) {
    const code = Number(error.code);
    const type = error.type ?? '';
    return new StatementError(
      kindOf(code, type),
      `ClickHouse ${code} ${type}: ${error.message.slice(0, 1000)}`,
      code,
      error,
    );
  }
  return new StatementError('transient', `ClickHouse did not answer: ${String(error).slice(0, 500)}`, undefined, error);
}

function kindOf(code: number, type: string): StatementErrorKind {
  if (code === 216) return 'busy';
  if (content.test(type)) return 'content';
  if (fatal.test(type)) return 'fatal';
  if (large.test(type)) return 'large';
  return trouble.test(type) ? 'transient' : 'unclear';
}
