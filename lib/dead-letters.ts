/**
 * Dead letters: what is in the log and cannot be stored, kept with its bytes and the reason until an operator has looked at
 * it. One stream for all shards; a letter is one message, its payload the original bytes.
 *
 * A letter is put there before the block without it is stored, so none is lost; after a crash in between it may be there
 * twice. Its identity is (generation, shard, sequence, index).
 */
import {
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
  type StreamConfig,
} from '@nats-io/jetstream';
import { headers, type MsgHdrs, type NatsConnection, type Payload } from '@nats-io/nats-core';
import { UsageError } from './errors.js';
import { isJetStreamError, isStreamMissing } from './jetstream-errors.js';
import { deadStream, deadSubject, deadSubjects, shardStream } from './subjects.js';
import { MiB } from './units.js';

/**
 * - `unframed`: the message is not a sequence of whole batches; the letter is the whole message
 * - `refused`: ClickHouse cannot read the batch
 * - `rescan`: some events of the batch break a rule that the gateway's contract did not know; the others are stored
 */
export type DeadKind = 'unframed' | 'refused' | 'rescan';

export interface DeadLetter {
  readonly shard: number;
  /** Stream and its generation, and the message in it. */
  readonly stream: string;
  readonly generation: string;
  readonly sequence: number;
  /** Place of the batch in its message, from 0. */
  readonly index: number;
  /** '' when the bytes name none. */
  readonly tenant: string;
  readonly batchId: string;
  readonly kind: DeadKind;
  /** One sentence. */
  readonly reason: string;
  /** Events that are not stored because of it. */
  readonly events: number;
  /** One length-delimited StoredBatch, or the whole message. */
  readonly bytes: Uint8Array;
}

const names = {
  kind: 'Sluice-Kind',
  reason: 'Sluice-Reason',
  shard: 'Sluice-Shard',
  stream: 'Sluice-Stream',
  generation: 'Sluice-Generation',
  sequence: 'Sluice-Sequence',
  index: 'Sluice-Index',
  tenant: 'Sluice-Tenant',
  batchId: 'Sluice-Batch-Id',
  events: 'Sluice-Events',
  cutFrom: 'Sluice-Cut-From',
} as const;

const maxReasonBytes = 1024;
const maxNameBytes = 256;
/** Room for a letter's headers, within the server's largest message. */
const headerBytes = 4096;
const publishMs = 10_000;

/** A header's value: one line of printable ASCII, of so many characters. */
const line = (text: string, max: number): string =>
  text
    .replace(/[^\x20-\x7e]/g, '?')
    .slice(0, max)
    .trim();

export interface DeadLetters {
  /**
   * Resolves when JetStream has all of them. Rejects when it has not: the stream is full (it drops nothing), or NATS cannot
   * be reached; those that it has are not put there twice within two minutes.
   */
  put(letters: readonly DeadLetter[]): Promise<void>;
}

/**
 * Makes sure that the stream is there.
 * @param replicas and maxBytes are for a new one
 * @throws UsageError when a stream of that name could lose letters
 */
export async function ensureDeadLetters(
  jsm: JetStreamManager,
  { replicas, maxBytes }: { readonly replicas: number; readonly maxBytes: number },
): Promise<void> {
  try {
    verify((await jsm.streams.info(deadStream)).config);
    return;
  } catch (error) {
    if (!isStreamMissing(error)) throw error;
  }
  try {
    await jsm.streams.add({
      name: deadStream,
      subjects: [deadSubjects],
      retention: 'limits',
      discard: 'new',
      storage: 'file',
      max_bytes: maxBytes,
      num_replicas: replicas,
      allow_direct: true,
    });
  } catch (error) {
    // Another worker made it meanwhile.
    if (!isJetStreamError(error, 'streamNameInUse')) throw error;
    verify((await jsm.streams.info(deadStream)).config);
  }
}

function verify(config: StreamConfig): void {
  if (config.sealed === true) {
    throw new UsageError(
      `The stream ${deadStream} is sealed and takes no dead letters any more, which cannot be undone: keep what it holds with \`nats stream backup\`, and remove it. Workers make another.`,
    );
  }
  const wanted = { retention: 'limits', discard: 'new', storage: 'file', max_age: 0 } as const;
  for (const [setting, value] of Object.entries(wanted)) {
    const actual = config[setting as keyof typeof wanted];
    if (actual !== value) {
      throw new UsageError(
        `The stream ${deadStream} has ${setting} "${actual}", but must have "${value}" so that no dead letter is lost: change it with \`nats stream edit\`, or remove the stream if it is not Sluice's.`,
      );
    }
  }
  if (!config.subjects?.includes(deadSubjects)) {
    throw new UsageError(
      `The stream ${deadStream} does not listen to ${deadSubjects}: add this subject, or remove the stream if it is not Sluice's.`,
    );
  }
}

function headersOf(letter: DeadLetter, sizeBefore: number | undefined): MsgHdrs {
  const head = headers();
  head.set(names.kind, letter.kind);
  head.set(names.reason, line(letter.reason, maxReasonBytes));
  head.set(names.shard, String(letter.shard));
  head.set(names.stream, letter.stream);
  head.set(names.generation, letter.generation);
  head.set(names.sequence, String(letter.sequence));
  head.set(names.index, String(letter.index));
  head.set(names.tenant, line(letter.tenant, maxNameBytes));
  head.set(names.batchId, line(letter.batchId, maxNameBytes));
  head.set(names.events, String(letter.events));
  if (sizeBefore !== undefined) head.set(names.cutFrom, String(sizeBefore));
  return head;
}

/** A letter as it came from the stream; undefined when the message is none. */
export function deadLetterOf(message: {
  readonly headers?: MsgHdrs | undefined;
  readonly data: Uint8Array;
}): DeadLetter | undefined {
  const head = message.headers;
  const kind = head?.get(names.kind) ?? '';
  if (head === undefined || !['unframed', 'refused', 'rescan'].includes(kind)) return undefined;
  return {
    kind: kind as DeadKind,
    reason: head.get(names.reason),
    shard: Number(head.get(names.shard)),
    stream: head.get(names.stream),
    generation: head.get(names.generation),
    sequence: Number(head.get(names.sequence)),
    index: Number(head.get(names.index)),
    tenant: head.get(names.tenant),
    batchId: head.get(names.batchId),
    events: Number(head.get(names.events)),
    bytes: message.data,
  };
}

export interface DeadLettersOptions {
  readonly nc: NatsConnection;
  /** Of a stream that has to be made. */
  readonly maxBytes: number;
}

/** Where dead letters go. The stream is made when it is not there. */
export function createDeadLetters({ nc, maxBytes }: DeadLettersOptions): DeadLetters {
  const js: JetStreamClient = jetstream(nc);
  /** Done once per process, and again when a letter found no stream. */
  let ensured: Promise<void> | undefined;

  async function ensure(): Promise<void> {
    const jsm = await jetstreamManager(nc, { checkAPI: false });
    // As safe as the log itself.
    const first = await jsm.streams.info(shardStream(0)).catch(() => undefined);
    await ensureDeadLetters(jsm, { replicas: first?.config.num_replicas ?? 1, maxBytes });
  }

  async function publish(letter: DeadLetter): Promise<void> {
    const max = (nc.info?.max_payload ?? MiB) - headerBytes;
    // Only a message that no gateway wrote can be as large: batches leave room. The whole of it is in the log for a while.
    const truncated = letter.bytes.length > max;
    const payload: Payload = truncated ? letter.bytes.subarray(0, max) : letter.bytes;
    await js.publish(deadSubject(letter.shard, letter.tenant), payload, {
      headers: headersOf(letter, truncated ? letter.bytes.length : undefined),
      msgID: `${letter.generation}.${letter.shard}.${letter.sequence}.${letter.index}`,
      expect: { streamName: deadStream },
      timeout: publishMs,
    });
  }

  return {
    async put(letters) {
      if (letters.length === 0) return;
      ensured ??= ensure();
      try {
        await ensured;
        // One after the other in groups: a publish holds a copy of its bytes.
        for (let at = 0; at < letters.length; at += 16) await Promise.all(letters.slice(at, at + 16).map(publish));
      } catch (error) {
        // It may have been removed: look again the next time.
        ensured = undefined;
        if (error instanceof UsageError) throw error;
        throw new Error(`the stream ${deadStream} of dead letters cannot be written: ${(error as Error).message}`, {
          cause: error,
        });
      }
    },
  };
}
