/**
 * What a client heard, written down as it happens. Each record is one write to a file: the kernel has it when the write returns, so
 * that it survives the SIGKILL of the process that wrote it.
 *
 *   JOURNAL-1  "sent" is written before the batch goes to the transport, so nothing is stored that the journals do not know.
 *   JOURNAL-2  "accepted" and "refused" are written when the client hears it, so that what they say was promised to somebody.
 *   JOURNAL-3  A batch that was sent and has no later record is unknown: it may be stored, once, or not at all.
 */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';

/** Events first … first + count - 1 of a source, in one batch. */
export interface SentBatch {
  readonly batchId: string;
  readonly first: number;
  readonly count: number;
  /** As on the wire. */
  readonly attempt: number;
}

/** Where the log has a batch. */
export interface Position {
  readonly shard: number;
  readonly sequence: bigint;
}

export interface Journal {
  sent(batch: SentBatch): void;
  accepted(batchId: string, position: Position | undefined): void;
  /** Nothing of it is in the log, said the gateway, and it will not be sent again. */
  refused(batchId: string, code: string): void;
  close(): void;
}

/** Appends to `file`. */
export function openJournal(file: string): Journal {
  const handle = openSync(file, 'a');
  const write = (line: string): void => {
    writeSync(handle, `${line}\n`);
  };
  return {
    sent: ({ batchId, first, count, attempt }) => write(`s ${batchId} ${first} ${count} ${attempt}`),
    accepted: (batchId, position) => write(`a ${batchId} ${position?.shard} ${position?.sequence}`),
    refused: (batchId, code) => write(`r ${batchId} ${code}`),
    close: () => closeSync(handle),
  };
}

export interface BatchHistory {
  readonly first: number;
  readonly count: number;
  /** Highest attempt that was sent. */
  attempt: number;
  sends: number;
  state: 'unknown' | 'accepted' | 'refused';
  /** Of the last acceptance: `sequence 17 of shard 2`. */
  place: string;
}

/**
 * Reads a journal. A last line that was cut is left out.
 * @throws Error when it contradicts itself: the client under test broke one of its rules
 */
export function readJournal(file: string): Map<string, BatchHistory> {
  const batches = new Map<string, BatchHistory>();
  const lines = readFileSync(file, 'utf8').split('\n');
  lines.pop();
  for (const line of lines) {
    const [kind, batchId = '', first, count, attempt] = line.split(' ');
    const batch = batches.get(batchId);
    if (kind === 's') {
      const sent = { first: Number(first), count: Number(count), attempt: Number(attempt) };
      if (batch === undefined) batches.set(batchId, { ...sent, sends: 1, state: 'unknown', place: 'nowhere' });
      else {
        if (batch.first !== sent.first || batch.count !== sent.count) {
          throw new Error(`${file}: batch ${batchId} was sent with other events than before: ${line}`);
        }
        // 0 says that the sends are not counted.
        if (sent.attempt !== 0 && sent.attempt <= batch.attempt)
          throw new Error(`${file}: batch ${batchId} was sent again as attempt ${attempt}`);
        batch.attempt = sent.attempt;
        batch.sends++;
      }
    } else if (batch === undefined) {
      throw new Error(`${file}: "${line}" is about a batch that was never sent`);
    } else if (kind === 'a') {
      batch.state = 'accepted';
      batch.place = `sequence ${count} of shard ${first}`;
    } else if (batch.state !== 'accepted') {
      batch.state = 'refused';
    }
  }
  return batches;
}
