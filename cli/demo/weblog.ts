/** Requests to a web site from an access log in Combined Log Format, as page views. */
import { createHash } from 'node:crypto';
import { UsageError } from '../../lib/errors.js';
import { daysSince1970, isDay } from '../../lib/timestamp.js';
import { KiB } from '../../lib/units.js';
import { type EventInit, EventType, Platform } from '../../sdk-gen/typescript/src/index.js';
import { linesOf, openInput } from './input.js';
import type { Source } from './source.js';

export interface LogLine {
  readonly address: string;
  readonly user: string | undefined;
  readonly time: Date;
  readonly method: string;
  /** As requested: path and query, or a whole URL. */
  readonly target: string;
  readonly status: number;
  /** Of the answer; undefined when the log does not say. */
  readonly bytes: number | undefined;
  readonly referrer: string | undefined;
  readonly userAgent: string | undefined;
  /** The line ended within its last field, the user agent. */
  readonly cutShort: boolean;
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const quoted = String.raw`"((?:[^"\\]|\\.)*)"`;
const line = new RegExp(
  // A writer that was cut off leaves the last quote open.
  String.raw`^(\S+) \S+ (\S+) \[([^\]]{1,40})\] ${quoted} (\d{3}) (\d{1,15}|-) ${quoted} "((?:[^"\\]|\\.)*)("?)\s*$`,
);
const stamp = /^(\d{2})\/([A-Z][a-z]{2})\/(\d{4}):(\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2})$/;
const request = /^([A-Z]{1,20}) (\S+)(?: HTTP\/\d(?:\.\d)?)?$/;

/** Events lie between 1970 and 2199, by the contract. */
const endMs = Date.UTC(2200, 0, 1);

const maxLineBytes = 32 * KiB;

/** "17/May/2015:10:05:03 +0000" */
export function parseTime(text: string): Date | undefined {
  const match = stamp.exec(text);
  if (match === null) return undefined;
  const [, day, month, year, hour, minute, second, sign, zoneHours, zoneMinutes] = match;
  const monthNumber = months.indexOf(month as string) + 1;
  // Date.UTC would make another time of one that does not exist, and the year 1970 of the year 70.
  if (!isDay(Number(year), monthNumber, Number(day))) return undefined;
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 59) return undefined;
  if (Number(zoneHours) > 23 || Number(zoneMinutes) > 59) return undefined;
  const days = daysSince1970(Number(year), monthNumber, Number(day));
  const local = (((days * 24 + Number(hour)) * 60 + Number(minute)) * 60 + Number(second)) * 1_000;
  const offset = (Number(zoneHours) * 60 + Number(zoneMinutes)) * 60_000;
  const time = new Date(sign === '-' ? local + offset : local - offset);
  return time.getTime() >= 0 && time.getTime() < endMs ? time : undefined;
}

const said = (text: string | undefined): string | undefined =>
  text === undefined || text === '-' || text === '' ? undefined : text.replace(/\\(["\\])/g, '$1');

/** Undefined when it is no line of the format. */
export function parseLine(text: string): LogLine | undefined {
  const match = line.exec(text);
  if (match === null) return undefined;
  const [, address, user, at, asked, status, bytes, referrer, userAgent, closed] = match;
  const time = parseTime(at as string);
  const parts = request.exec(said(asked) ?? '');
  if (time === undefined || parts === null) return undefined;
  return {
    address: address as string,
    user: said(user),
    time,
    method: parts[1] as string,
    target: parts[2] as string,
    status: Number(status),
    bytes: bytes === '-' ? undefined : Number(bytes),
    referrer: said(referrer),
    userAgent: said(userAgent),
    cutShort: closed === '',
  };
}

/** At most so many bytes of UTF-8, cut between characters. */
function atMost(text: string, bytes: number): string {
  if (Buffer.byteLength(text) <= bytes) return text;
  return new TextDecoder().decode(Buffer.from(text).subarray(0, bytes)).replace(/�+$/, '');
}

export function pageEvent(entry: LogLine): EventInit {
  const path = entry.target.replace(/[?#].*$/s, '');
  const visitor = createHash('sha256')
    .update(`${entry.address} ${entry.userAgent ?? ''}`)
    .digest('hex');
  return {
    type: EventType.PAGE,
    occurredAt: entry.time,
    // The log knows no people: address and browser together stand for one.
    anonymousId: visitor.slice(0, 32),
    ...(entry.user === undefined ? {} : { userId: atMost(entry.user, 256) }),
    page: {
      url: atMost(entry.target, 4096),
      path: atMost(path, 2048),
      status: entry.status,
      ...(entry.referrer === undefined ? {} : { referrer: atMost(entry.referrer, 4096) }),
    },
    device: {
      platform: Platform.WEB,
      ...(entry.userAgent === undefined ? {} : { userAgent: atMost(entry.userAgent, 1024) }),
    },
    properties: { method: entry.method },
    ...(entry.bytes === undefined ? {} : { metrics: { response_bytes: entry.bytes } }),
  };
}

async function* entriesOf(file: string): AsyncGenerator<LogLine | { readonly bad: string }> {
  const input = await openInput(file);
  try {
    for await (const text of linesOf(input, maxLineBytes)) {
      if (text === '') continue;
      yield (text === undefined ? undefined : parseLine(text)) ?? { bad: text ?? `a line over ${maxLineBytes} bytes` };
    }
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${file} cannot be read: ${error instanceof Error ? error.message : String(error)}.`);
  } finally {
    input.destroy();
  }
}

/** Reads the file once to count; a second pass gives the events. */
export async function weblogSource(file: string): Promise<Source> {
  let total = 0;
  let bad = 0;
  let cutShort = 0;
  let sample = '';
  for await (const entry of entriesOf(file)) {
    if ('bad' in entry) {
      bad++;
      if (sample === '') sample = entry.bad.slice(0, 80).replace(/[^ -~]/g, '?');
    } else {
      total++;
      if (entry.cutShort) cutShort++;
    }
  }
  if (total === 0) {
    throw new UsageError(
      `${file} holds no line in Combined Log Format (of nginx or Apache)${sample && `: "${sample}"`}.`,
    );
  }
  const notes: string[] = [];
  if (bad > 0) notes.push(`${bad} of ${total + bad} lines are not in Combined Log Format and left out: "${sample}"`);
  if (cutShort > 0)
    notes.push(`${cutShort} of ${total + bad} lines end within their user agent and are taken as they are`);
  return {
    title: `${total.toLocaleString('en')} requests of ${file}`,
    total,
    notes,
    async *events() {
      for await (const entry of entriesOf(file)) if (!('bad' in entry)) yield pageEvent(entry);
    },
  };
}
