import { ClickHouseError } from '@clickhouse/client';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { sorted } from './errors.js';

const kindOf = (type: string, code = '1'): string => sorted(new ClickHouseError({ message: type, code, type })).kind;

test('what the bytes alone can cause is content: it may be moved to the dead-letter stream', () => {
  for (const type of [
    'CANNOT_READ_ALL_DATA',
    'ATTEMPT_TO_READ_AFTER_EOF',
    'UNKNOWN_PROTOBUF_FORMAT',
    'PROTOBUF_BAD_CAST',
    'INCORRECT_DATA',
    'VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE',
    'UNKNOWN_ELEMENT_OF_ENUM',
    'CANNOT_PARSE_TEXT',
    'CANNOT_CONVERT_TYPE',
    'CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN',
    'BAD_TYPE_OF_FIELD',
  ]) {
    assert.is(kindOf(type), 'content', type);
  }
});

test('what the statement, the table or the rights cause is fatal: no batch is blamed for it', () => {
  for (const type of [
    'CANNOT_PARSE_PROTOBUF_SCHEMA',
    'PROTOBUF_FIELD_NOT_REPEATED',
    'DATA_TYPE_INCOMPATIBLE_WITH_PROTOBUF_FIELD',
    'NO_COLUMNS_SERIALIZED_TO_PROTOBUF_FIELDS',
    'READONLY',
    'ACCESS_DENIED',
    'AUTHENTICATION_FAILED',
    'UNKNOWN_TABLE',
    'UNKNOWN_SETTING',
    'SETTING_CONSTRAINT_VIOLATION',
    'SYNTAX_ERROR',
  ]) {
    assert.is(kindOf(type), 'fatal', type);
  }
});

test('what passes by itself is transient: it is tried again, and nothing is skipped', () => {
  for (const type of [
    'NOT_ENOUGH_SPACE',
    'CANNOT_WRITE_TO_FILE_DESCRIPTOR',
    'TABLE_IS_READ_ONLY',
    'KEEPER_EXCEPTION',
    'TOO_MANY_PARTS',
    'TOO_MANY_SIMULTANEOUS_QUERIES',
    'TOO_MANY_PARTS',
    'CANNOT_READ_FROM_FILE_DESCRIPTOR',
    'ALL_REPLICAS_ARE_STALE',
    'CHECKSUM_DOESNT_MATCH',
    'UNKNOWN_STATUS_OF_INSERT',
    'QUERY_WAS_CANCELLED',
    'SOCKET_TIMEOUT',
    'UNKNOWN_EXCEPTION',
  ]) {
    assert.is(kindOf(type), 'transient', type);
  }
  assert.is(sorted(new Error('ECONNREFUSED')).kind, 'transient');
  assert.is(kindOf('QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING', '216'), 'busy');
});

test('what asks for too much is large: a smaller block may pass', () => {
  for (const type of [
    'MEMORY_LIMIT_EXCEEDED',
    'CANNOT_ALLOCATE_MEMORY',
    'TOO_MANY_ROWS_OR_BYTES',
    'TIMEOUT_EXCEEDED',
  ]) {
    assert.is(kindOf(type), 'large', type);
  }
});

test('an unlisted answer is unclear: neither the bytes nor the server are blamed for it yet', () => {
  for (const type of ['SOMETHING_NEW', 'LOGICAL_ERROR', 'VIOLATED_CONSTRAINT', ''])
    assert.is(kindOf(type), 'unclear', type);
});

test.run();
