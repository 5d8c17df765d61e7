/**
 * Reads the header blocks of HTTP/2 (HPACK, RFC 7541) that a server sends on one connection: what a call over plain sockets
 * (h2-frames.ts) needs to learn its gRPC status. A header that came before costs a look into a table.
 */

const staticTable = (
  ':authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|:status=204|' +
  ':status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|accept-encoding=gzip, deflate|' +
  'accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|' +
  'content-disposition|content-encoding|content-language|content-length|content-location|content-range|content-type|' +
  'cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|' +
  'last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|' +
  'server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate'
)
  .split('|')
  .map((entry): Header => {
    const [name = '', ...value] = entry.split('=');
    return { name, value: value.join('=') };
  });

interface Header {
  readonly name: string;
  readonly value: string;
}

/** What a client that says nothing else allows a server to keep. */
const defaultTableSize = 4096;
/** Of an entry, beside its text. */
const entryOverhead = 32;

export class HeaderBlockReader {
  /** The newest comes last. */
  private readonly entries: Header[] = [];
  private size = 0;
  private limit: number;
  private block: Uint8Array = new Uint8Array();
  private at = 0;

  /** @param most bytes that the server may keep, by SETTINGS_HEADER_TABLE_SIZE */
  constructor(private readonly most: number = defaultTableSize) {
    this.limit = most;
  }

  /** Every block of the connection must be read, in order. @throws Error on bytes that are none, after which none can be */
  read(block: Uint8Array, each: (name: string, value: string) => void): void {
    this.block = block;
    this.at = 0;
    while (this.at < block.length) {
      const first = block[this.at]!;
      if (first >= 0x80) {
        const { name, value } = this.entry(this.integer(7));
        each(name, value);
      } else if (first >= 0x40) {
        const header = this.literal(6);
        this.add(header);
        each(header.name, header.value);
      } else if (first >= 0x20) {
        const limit = this.integer(5);
        if (limit > this.most) throw new Error('the server keeps more headers than it may');
        this.limit = limit;
        this.evict();
      } else {
        const { name, value } = this.literal(4);
        each(name, value);
      }
    }
  }

  private entry(index: number): Header {
    const found =
      index <= staticTable.length
        ? staticTable[index - 1]
        : this.entries[this.entries.length - (index - staticTable.length)];
    if (found === undefined) throw new Error(`a header block names entry ${index}, which is not there`);
    return found;
  }

  private literal(prefix: number): Header {
    const index = this.integer(prefix);
    const name = index === 0 ? this.text() : this.entry(index).name;
    return { name, value: this.text() };
  }

  private add(header: Header): void {
    this.entries.push(header);
    this.size += sizeOf(header);
    this.evict();
  }

  private evict(): void {
    while (this.size > this.limit) {
      const oldest = this.entries.shift();
      if (oldest === undefined) break;
      this.size -= sizeOf(oldest);
    }
  }

  /** Of which the first byte has `prefix` bits. */
  private integer(prefix: number): number {
    const mask = (1 << prefix) - 1;
    let value = this.byte() & mask;
    if (value < mask) return value;
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = this.byte();
      value += (byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw new Error('a number in a header block is too large');
  }

  private text(): string {
    const coded = (this.block[this.at] ?? 0) >= 0x80;
    const length = this.integer(7);
    const end = this.at + length;
    if (end > this.block.length) throw new Error('a header block ends within a text');
    const bytes = this.block.subarray(this.at, end);
    this.at = end;
    return coded ? huffmanText(bytes) : Buffer.from(bytes).toString('latin1');
  }

  private byte(): number {
    const byte = this.block[this.at++];
    if (byte === undefined) throw new Error('a header block ends within a number');
    return byte;
  }
}

const sizeOf = ({ name, value }: Header): number => name.length + value.length + entryOverhead;

/**
 * Bits of the code of each byte, 0 to 255, one digit of base 36 each. The code is canonical: lengths are all of it. The end
 * mark comes after the last code; no text holds it.
 */
const codeLengths =
  'dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6ca' +
  'd67777777777777777777777878djde6f56565666577666567655677777fbeds' +
  'kmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn' +
  'qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrq';

/** Two places for each knot: where a bit leads. 0: nowhere; below it: the byte, less 256. */
const tree: readonly number[] = (() => {
  const knots = [0, 0];
  let code = 0;
  for (let length = 1; length <= 30; length++, code *= 2) {
    for (let byte = 0; byte < 256; byte++) {
      if (Number.parseInt(codeLengths[byte]!, 36) !== length) continue;
      let knot = 0;
      for (let bit = length - 1; bit > 0; bit--) {
        const place = knot + ((code >>> bit) & 1);
        if (knots[place] === 0) knots[place] = knots.push(0, 0) - 2;
        knot = knots[place]!;
      }
      knots[knot + (code & 1)] = byte - 256;
      code++;
    }
  }
  return knots;
})();

function huffmanText(bytes: Uint8Array): string {
  const text: number[] = [];
  let knot = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      const next = tree[knot + ((byte >>> bit) & 1)]!;
      if (next === 0) throw new Error('a text of a header block is not in its code');
      if (next < 0) text.push(next + 256);
      knot = Math.max(0, next);
    }
  }
  // What is left is a beginning of the end mark.
  return String.fromCharCode(...text);
}
