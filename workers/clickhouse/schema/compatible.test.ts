import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { fitOf, parseType } from './compatible.js';

const kindOf = (found: string, wanted: string, exact = false): string => {
  const fit = fitOf(found, wanted, exact);
  return fit.kind === 'widen' ? fit.to : fit.kind;
};

test('types are taken apart at commas outside of quotes and brackets', () => {
  assert.equal(parseType("Enum8('a, (b)' = 1, 'it\\'s' = 2)"), {
    name: 'Enum8',
    args: ["'a, (b)' = 1", "'it\\'s' = 2"],
  });
  assert.equal(parseType('Map(String, Tuple(UInt8, String))').args, ['String', 'Tuple(UInt8, String)']);
});

test('a type that an operator changed is left alone when it holds the same values', () => {
  for (const [found, wanted] of [
    ['String', 'LowCardinality(String)'],
    ['LowCardinality(String)', 'String'],
    ['Nullable(String)', 'String'],
    ['LowCardinality(Nullable(String))', 'Nullable(String)'],
    ['Int64', 'Int32'],
    ['Int64', 'UInt32'],
    ['UInt256', 'UInt128'],
    ['UInt8', 'Bool'],
    ['Float64', 'Float32'],
    ["DateTime64(3, 'Europe/Berlin')", "DateTime64(9, 'UTC')"],
    ['Date32', 'Date'],
    ['Map(LowCardinality(String), String)', 'Map(String, String)'],
    ['Array(String)', 'Array(LowCardinality(String))'],
    ["Enum8('a' = 0, 'b' = 1, 'newer' = 2)", "Enum8('a' = 0, 'b' = 1)"],
    ['LowCardinality(String)', "Enum8('a' = 0, 'b' = 1)"],
    ['Int16', "Enum8('a' = 0, 'b' = 1)"],
  ] as const) {
    assert.is(kindOf(found, wanted), 'fits', `${found} for ${wanted}`);
  }
});

test('what is too narrow is widened, and keeps what it had', () => {
  assert.is(kindOf('Int32', 'Int64'), 'Int64');
  assert.is(kindOf('Float32', 'Float64'), 'Float64');
  assert.is(kindOf("Enum8('a' = 0, 'newer' = 9)", "Enum8('a' = 0, 'b' = 1)"), "Enum8('a' = 0, 'b' = 1, 'newer' = 9)");
  assert.is(kindOf("Enum8('a' = 0)", "Enum16('a' = 0, 'b' = 300)"), "Enum16('a' = 0, 'b' = 300)");
  assert.is(kindOf("Nullable(Enum8('a' = 0))", "Enum8('a' = 0, 'b' = 1)"), "Nullable(Enum8('a' = 0, 'b' = 1))");
});

test('what holds other values is a misfit', () => {
  for (const [found, wanted] of [
    ['UInt64', 'String'],
    ['FixedString(8)', 'String'],
    ['String', 'UInt64'],
    ['UInt32', 'Int32'],
    ['Bool', 'UInt32'],
    ['Int32', 'Float64'],
    ['Decimal(18, 6)', 'Int64'],
    ['DateTime', "DateTime64(9, 'UTC')"],
    ['String', 'Nullable(String)'],
    ['Map(String, UInt64)', 'Map(String, String)'],
    ['Array(Int32)', 'Array(Int64)'],
    ["Enum8('a' = 0, 'c' = 1)", "Enum8('a' = 0, 'b' = 1)"],
    ["Enum8('a' = 0, 'b' = 2)", "Enum8('a' = 0, 'b' = 1)"],
    ['UInt8', "Enum8('a' = -1)"],
  ] as const) {
    assert.is(kindOf(found, wanted), 'misfit', `${found} for ${wanted}`);
  }
  assert.is(kindOf("DateTime64(0, 'UTC')", "DateTime64(3, 'UTC')", true), 'misfit');
  assert.is(kindOf("DateTime64(9, 'UTC')", "DateTime64(3, 'UTC')", true), 'fits');
});

test.run();
