/**
 * One event from JSON to Protobuf, in one pass and by the contract's tree: what ProtoJSON allows and nothing else. Values are checked
 * for their type here, and for the contract's rules by the scan, as those of every other encoding.
 *
 * `null` stands for an absent field. A name that comes twice, in whichever spelling, refuses the event; a map's keys are data, whatever
 * they are called, and the scan refuses one that comes twice.
 */
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { parseTimestamp } from '../../timestamp.js';
import { enumOf } from '../faults.js';
import type { Kind } from '../rules.js';
import { FieldFault, shown } from './fault.js';
import { floatingNumber, isWholeKind, type WholeKind, wholeNumber } from './numbers.js';
import type { WireOutput } from './output.js';
import type { FieldPlan, MessagePlan } from './plan.js';
import { maxNames, SeenNames } from './seen-names.js';
import type { JsonText } from './text.js';

/** Paths of ignored fields that an answer names. */
const maxIgnored = 100;
/** Bits of a small integer, one a field. */
const bitFields = 31;

export class EventReader {
  /** Paths of fields that were ignored, each once: `kept` of them in good events, and those of the event that is read. */
  private readonly ignored: string[] = [];
  /** The messages around the one that is read, for such paths. */
  private readonly around: string[] = [];
  /** Unknown names of the messages around the value that is read. */
  private readonly unknown = new SeenNames();
  /** What `ignored` holds, without making strings for what comes again. */
  private readonly noted = new SeenNames();
  private kept = 0;

  constructor(
    private readonly text: JsonText,
    private readonly out: WireOutput,
    /** Else an unknown field refuses the event. */
    private readonly ignoreUnknown: boolean,
  ) {}

  /** Begins an event, and forgets what was ignored in the one before unless that was to be kept. */
  restart(): void {
    this.ignored.length = this.kept;
    this.noted.size = this.kept;
    this.around.length = 0;
    this.unknown.size = 0;
  }

  /** The event that was read last is a good one: the answer names the fields that were ignored in it. */
  keepIgnored(): void {
    this.kept = this.ignored.length;
  }

  /** The paths of what was ignored in good events: each once, at most 100. */
  told(): string[] {
    return this.ignored.slice(0, this.kept);
  }

  /** Reads the object at the text's position, and writes the message without its length. @throws FieldFault, SluiceError json_invalid */
  message(plan: MessagePlan): void {
    const { text, unknown } = this;
    if (!text.openObject()) return;
    const mark = unknown.size;
    let seen = 0;
    let others: Set<number> | undefined;
    do {
      const field = text.key(plan.names);
      if (field === undefined) {
        this.unknownName(plan, mark);
        continue;
      }
      const { index } = field;
      if (index < bitFields) {
        const bit = 1 << index;
        if ((seen & bit) !== 0) repeated(field.node.name);
        seen |= bit;
      } else {
        others ??= new Set();
        if (others.has(index)) repeated(field.node.name);
        others.add(index);
      }
      this.field(field);
    } while (text.moreMembers());
    unknown.size = mark;
  }

  /** The key that was read last, and its value. @throws FieldFault unless unknown fields are ignored */
  private unknownName(plan: MessagePlan, mark: number): void {
    const { text, unknown } = this;
    const { source, from, to } = text;
    if (!this.ignoreUnknown) {
      throw new FieldFault(
        RejectionCode.UNKNOWN_FIELD,
        () => `unknown field; ${plan.node.typeName} has ${plan.node.fields.map(({ jsonName }) => jsonName).join(', ')}`,
        () => shown(source, from, to),
      );
    }
    text.checkUtf8();
    if (!unknown.add(source, from, to, mark)) repeated(() => shown(source, from, to));
    if (unknown.size - mark > maxNames) {
      throw new FieldFault(RejectionCode.TOO_MANY, `has more than ${maxNames} unknown fields`);
    }
    if (this.ignored.length < maxIgnored && this.noted.add(source, from, to, 0, plan.id)) {
      this.ignored.push([...this.around, shown(source, from, to)].join('.'));
    }
    try {
      text.skip(true);
    } catch (reason) {
      if (reason instanceof FieldFault) reason.within(() => shown(source, from, to));
      throw reason;
    }
  }

  private field(plan: FieldPlan): void {
    const { node } = plan;
    try {
      if (this.text.takeNull()) return;
      if (node.cardinality === 'singular') this.value(plan, plan.tag, !node.optional);
      else if (node.cardinality === 'map') this.map(plan);
      else this.list(plan);
    } catch (reason) {
      if (reason instanceof FieldFault) reason.within(node.name);
      throw reason;
    }
  }

  private list(plan: FieldPlan): void {
    const { text } = this;
    const { maxItems = Number.POSITIVE_INFINITY } = plan.node.rules;
    if (!text.openArray()) return;
    let index = 0;
    do {
      if (index === maxItems) tooMany('items', maxItems);
      try {
        this.value(plan, plan.tag, false);
      } catch (reason) {
        if (reason instanceof FieldFault) reason.within(`[${index}]`);
        throw reason;
      }
      index++;
    } while (text.moreItems());
  }

  private map(plan: FieldPlan): void {
    const { text, out } = this;
    const { maxItems = Number.POSITIVE_INFINITY } = plan.node.rules;
    if (!text.openObject()) return;
    let count = 0;
    do {
      if (count++ === maxItems) tooMany('entries', maxItems);
      out.varint(plan.tag);
      const entry = out.open();
      out.byte(0x0a);
      const key = out.open();
      if (text.next() !== 0x22) text.fail('a key in quotes');
      out.q = text.copyString(out.bytes, out.q);
      const from = key + 1;
      const to = out.q;
      out.close(key);
      const moved = out.q - to;
      text.colon();
      try {
        this.value(plan, plan.valueTag, false);
      } catch (reason) {
        if (reason instanceof FieldFault) reason.within(() => `[${shown(out.bytes, from + moved, to + moved)}]`);
        throw reason;
      }
      out.close(entry);
    } while (text.moreMembers());
  }

  /** @param omit a zero, an empty string: absent is the same */
  private value(plan: FieldPlan, tag: number, omit: boolean): void {
    const { kind } = plan.node;
    switch (kind) {
      case 'string':
        this.string(tag, omit);
        break;
      case 'message':
        this.nested(plan, tag);
        break;
      case 'enum':
        this.enumeration(plan, tag, omit);
        break;
      case 'double':
      case 'float':
        this.floating(kind, tag, omit);
        break;
      case 'bool':
        this.bool(tag, omit);
        break;
      case 'bytes':
        this.base64(tag, omit);
        break;
      default:
        this.whole(kind, tag, omit);
    }
  }

  private string(tag: number, omit: boolean): void {
    const { text, out } = this;
    if (text.next() !== 0x22) text.wrongType('a string');
    const before = out.q;
    out.varint(tag);
    const at = out.open();
    const from = out.q;
    out.q = text.copyString(out.bytes, from);
    if (omit && out.q === from) out.q = before;
    else out.close(at);
  }

  private nested(plan: FieldPlan, tag: number): void {
    const { text, out } = this;
    const message = plan.message as MessagePlan;
    if (!message.isTimestamp && text.next() !== 0x7b) text.wrongType('an object');
    out.varint(tag);
    const at = out.open();
    if (message.isTimestamp) this.timestamp();
    else {
      this.around.push(plan.node.name);
      this.message(message);
      this.around.pop();
    }
    out.close(at);
  }

  private timestamp(): void {
    const { text, out } = this;
    const { seconds, nanos } = readTimestamp(text);
    if (seconds > 0) {
      out.byte(0x08);
      out.varint(seconds);
    } else if (seconds < 0) {
      out.byte(0x08);
      out.varint64(BigInt(seconds));
    }
    if (nanos !== 0) {
      out.byte(0x10);
      out.varint(nanos);
    }
  }

  private enumeration(plan: FieldPlan, tag: number, omit: boolean): void {
    const { text, out } = this;
    let number: number | undefined;
    if (text.next() === 0x22) {
      text.string();
      number = plan.enumNames?.findIn(text.source, text.from, text.to);
      if (number === undefined) {
        throw new FieldFault(
          RejectionCode.UNKNOWN_ENUM,
          () => `is "${text.shown()}", which this gateway does not know; ${enumOf(plan.node)}`,
        );
      }
    } else {
      takeNumber(text, 'the name of an enum value, or its number');
      number = Number(wholeNumber(text.source, text.from, text.to, 'int32'));
    }
    if (omit && number === 0) return;
    out.varint(tag);
    if (number >= 0) out.varint(number);
    else out.varint64(BigInt(number));
  }

  private floating(kind: 'double' | 'float', tag: number, omit: boolean): void {
    const { text, out } = this;
    takeNumberOrString(text, 'a number');
    const value = floatingNumber(text.source, text.from, text.to, kind);
    if (omit && Object.is(value, 0)) return;
    out.varint(tag);
    if (kind === 'double') out.double(value);
    else out.float(value);
  }

  private bool(tag: number, omit: boolean): void {
    const { text, out } = this;
    const byte = text.next();
    if (byte === 0x74) text.literal('true');
    else if (byte === 0x66) text.literal('false');
    else text.wrongType('true or false');
    if (omit && byte === 0x66) return;
    out.varint(tag);
    out.byte(byte === 0x74 ? 1 : 0);
  }

  private base64(tag: number, omit: boolean): void {
    const { text, out } = this;
    if (text.next() !== 0x22) text.wrongType('a string of base64');
    text.string();
    const content = Buffer.from(text.source.subarray(text.from, text.to)).toString('latin1');
    const unpadded = content.replace(/={1,2}$/, '');
    const padded = content.length > unpadded.length;
    if (!/^[A-Za-z0-9+/_-]*$/.test(unpadded) || unpadded.length % 4 === 1 || (padded && content.length % 4 !== 0)) {
      throw new FieldFault(RejectionCode.TYPE, 'is no base64');
    }
    if (omit && unpadded === '') return;
    const bytes = Buffer.from(unpadded, 'base64');
    out.varint(tag);
    const at = out.open();
    for (const byte of bytes) out.byte(byte);
    out.close(at);
  }

  private whole(kind: Kind, tag: number, omit: boolean): void {
    const { text, out } = this;
    if (!isWholeKind(kind)) throw new Error(`JSON: fields of kind ${kind} are not supported`);
    takeNumberOrString(text, 'a whole number');
    const value = wholeNumber(text.source, text.from, text.to, kind);
    if (omit && Number(value) === 0) return;
    out.varint(tag);
    writeWhole(out, kind, value);
  }
}

function writeWhole(out: WireOutput, kind: WholeKind, value: number | bigint): void {
  switch (kind) {
    case 'fixed32':
    case 'sfixed32':
      out.fixed32(Number(value));
      break;
    case 'fixed64':
    case 'sfixed64':
      out.fixed64(BigInt(value));
      break;
    case 'sint32':
    case 'sint64':
      // A number has at most 15 digits here: twice that is still exact.
      if (typeof value === 'number') out.varint(value < 0 ? -2 * value - 1 : 2 * value);
      else out.varint64(value < 0n ? -2n * value - 1n : 2n * value);
      break;
    default:
      if (typeof value === 'number' && value >= 0) out.varint(value);
      else out.varint64(BigInt(value));
  }
}

function takeNumber(text: JsonText, wanted: string): void {
  const byte = text.next();
  if (byte !== 0x2d && !(byte >= 0x30 && byte <= 0x39)) text.wrongType(wanted);
  text.number();
}

function takeNumberOrString(text: JsonText, wanted: string): void {
  if (text.next() === 0x22) text.string();
  else takeNumber(text, wanted);
}

/** Moves behind the whole number at the text's position, bare or quoted. @throws FieldFault when it is none */
export function readWhole(text: JsonText, kind: WholeKind): number | bigint {
  takeNumberOrString(text, 'a whole number');
  return wholeNumber(text.source, text.from, text.to, kind);
}

/** Moves behind the time at the text's position. @throws FieldFault when it is none */
export function readTimestamp(text: JsonText): { readonly seconds: number; readonly nanos: number } {
  if (text.next() !== 0x22) text.wrongType('a time such as "2026-01-31T12:00:00Z"');
  text.string();
  const time = parseTimestamp(text.source, text.from, text.to);
  if (time === undefined) {
    throw new FieldFault(
      RejectionCode.TYPE,
      () =>
        `is "${text.shown()}", which is no time that exists; write it as "2026-01-31T12:00:00Z", with "Z" or an offset`,
    );
  }
  return time;
}

function repeated(name: string | (() => string)): never {
  throw new FieldFault(RejectionCode.REPEATED, 'given twice; give it at most once', name);
}

function tooMany(what: string, max: number): never {
  throw new FieldFault(RejectionCode.TOO_MANY, `has too many ${what}; at most ${max} are allowed`);
}
