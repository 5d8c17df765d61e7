/**
 * Copies of messages of the log. A copy must say that it is a retry: then the loader stores it once (workers/loader/dedup.ts).
 */

/**
 * Makes a copy of a message a retry: where a batch says attempt 1, it says 2 from now on, in place. Others stay as they are.
 * @param message stored batches as the gateway wrote them (gateway/ingest/stored-batch.ts): tenant and batch id, then the attempt
 */
export function markRetried(message: Uint8Array): void {
  let at = 0;
  let value = 0;
  const varint = (): void => {
    value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[at++] as number;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return;
    }
  };
  while (at < message.length) {
    varint();
    const end = at + value;
    while (message[at] === 0x12 || message[at] === 0x1a) {
      at++;
      varint();
      at += value;
    }
    if (message[at] === 0x20 && message[at + 1] === 1) message[at + 1] = 2;
    at = end;
  }
}
